"""Records as `rows`: nothing is lost, nothing is written twice, no default changes silently."""

from __future__ import annotations

import json

import pytest

from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job, Proposal, PublishedResult, RunOutput
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.requester.rows import (
    execution_json,
    execution_record,
    job_json,
    job_record,
    read_execution,
    read_job,
)
from tests.support.results import result_cid

JOB, EXECUTION, NODE = JobID("the-job"), ExecutionID("the-run"), PeerID("the-node")


def execution(**fields: object) -> Execution:
    values = {"state": ExecutionState.COMPLETED, "created": 1.0, "modified": 2.0, **fields}
    return Execution(id=EXECUTION, job_id=JOB, node_id=NODE, **values)


def proposal() -> Proposal:
    return Proposal(
        job_id=JOB,
        execution_id=EXECUTION,
        node_id=NODE,
        result_cid=result_cid("result"),
        output=RunOutput(exit_code=3, stdout=b"\xff"),
    )


def test_a_job_is_read_as_it_was_written():
    spec = job_from_mapping({"Count": 3, "Tasks": [{"Engine": {"Type": "noop"}}]})
    job = Job(
        id=JOB, spec=spec, state=JobState.RUNNING, requester_id=NODE, created=1.5, modified=2.5, revision=4
    )
    assert read_job(JOB, "Running", 1.5, 2.5, job_json(job)) == job


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"proposal": proposal(), "slot": 0, "outlives_node": True},
        {"published": PublishedResult(cid=result_cid("r"), location=SpecConfig(type="ipfs"))},
        {"state": ExecutionState.FAILED, "permanent": True, "drained": True, "message": "why"},
    ],
)
def test_an_execution_is_read_as_it_was_written(fields):
    written = execution(**fields)
    assert read_execution(JOB, EXECUTION, execution_json(written)) == written


def test_no_id_is_in_a_row_twice():
    text = execution_json(execution(proposal=proposal())).decode()
    assert (text.count(EXECUTION), text.count(JOB), text.count(NODE)) == (0, 0, 1)


def test_what_is_left_out_of_a_row_means_what_it_meant_when_it_was_written():
    """If this fails, a default has changed: a migration must write the earlier value into the rows."""
    required = {"NodeID": NODE, "State": "BidReceived", "Created": 1.0, "Modified": 1.0}
    read = read_execution(JOB, EXECUTION, json.dumps(required).encode())
    assert json.loads(read.model_dump_json(by_alias=True)) == {
        **required, "ID": EXECUTION, "JobID": JOB, "Message": "", "Proposal": None, "Published": None,
        "OutlivesNode": False, "Slot": None, "Permanent": False, "Drained": False,
        "InputBytes": 0, "LocalInputBytes": 0, "FailedUsage": None, "FailedCID": None,
    }  # fmt: skip
    task = {"Engine": {"Type": "noop"}}
    record = {"Spec": {"Tasks": [task]}, "RequesterID": NODE}
    job = json.loads(
        read_job(JOB, "Pending", 1.0, 1.0, json.dumps(record).encode()).model_dump_json(by_alias=True)
    )
    assert job == {
        "ID": JOB,
        "Spec": {
            "Name": "",
            "Namespace": "default",
            "Type": "batch",
            "Priority": 0,
            "Count": 1,
            "Constraints": [],
            "Labels": {},
            "Meta": {},
            "Verifier": {"Type": "noop", "Params": {}},
            "KeepFailedResults": False,
            "Deal": {"MinBids": 0, "Replicas": 0},
            "Tasks": [
                {
                    "Name": "main",
                    "Engine": {"Type": "noop", "Params": {}},
                    "Publisher": {"Type": "ipfs", "Params": {}},
                    "Env": {},
                    "Meta": {},
                    "InputSources": [],
                    "ResultPaths": [],
                    "Resources": {"CPU": "", "Memory": "", "Disk": "", "GPU": ""},
                    "Network": {"Type": "None", "Domains": []},
                    "Timeouts": {"ExecutionTimeout": 0.0, "QueueTimeout": 0.0, "TotalTimeout": 0.0},
                }
            ],
        },
        "State": "Pending",
        "Message": "",
        "RequesterID": NODE,
        "Created": 1.0,
        "Modified": 1.0,
        "Revision": 1,
        "Nodes": [],
    }


@pytest.mark.parametrize("record", [b"[]", b"no json", b"\xff"])
def test_a_row_that_is_no_record_is_a_value_error(record):
    for read in (read_execution, execution_record):
        with pytest.raises(ValueError, match=r"no object|expected"):
            read(JOB, EXECUTION, record)
    for read in (read_job, job_record):
        with pytest.raises(ValueError, match=r"no object|expected"):
            read(JOB, "Pending", 1.0, 1.0, record)


def test_a_row_as_json_is_the_json_of_what_is_read():
    written = execution(proposal=proposal(), slot=0)
    shown = execution_record(JOB, EXECUTION, execution_json(written))
    assert shown == written.model_dump(mode="json", by_alias=True)
    spec = job_from_mapping({"Count": 3, "Tasks": [{"Engine": {"Type": "noop"}}]})
    job = Job(id=JOB, spec=spec, state=JobState.RUNNING, requester_id=NODE, created=1.5, modified=2.5)
    assert job_record(JOB, "Running", 1.5, 2.5, job_json(job)) == job.model_dump(mode="json", by_alias=True)
