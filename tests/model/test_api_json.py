"""What the server writes, clients read back: `api_json`, `api_errors`, `execution`, `history`, `node`,
`state`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bacalhau_p2p import errors
from bacalhau_p2p.errors import ApiError, Fault, InvalidJob, UnknownJob
from bacalhau_p2p.model.api_errors import error_from_json, error_to_json
from bacalhau_p2p.model.api_json import (
    event_from_json,
    event_to_json,
    execution_from_json,
    execution_to_json,
    job_from_json,
    job_to_json,
    result_from_json,
    result_to_json,
)
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job, Proposal, PublishedResult, RunOutput
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.model.usage import Usage
from tests.support.results import result_cid

JOB, EXECUTION, NODE = JobID("j-1"), ExecutionID("e-1"), PeerID("12D3KooWa")
CID = result_cid("result")

SPEC = job_from_mapping(
    {"Name": "hello", "Tasks": [{"Engine": {"Type": "docker", "Params": {"Image": "busybox"}}}]}
)


def test_an_execution_shows_which_partition_it_does():
    placed, spec = an_execution().replace(slot=2), SPEC.replace(count=3)
    assert execution_to_json(placed, spec)["PartitionIndex"] == 2
    assert execution_to_json(an_execution(), spec)["PartitionIndex"] == 0
    assert execution_to_json(placed, spec)["PartitionCount"] == 3
    compared = spec.replace(verifier=SpecConfig(type="deterministic"))
    assert execution_to_json(placed, compared)["PartitionIndex"] == 0
    assert "PartitionCount" not in execution_to_json(placed, compared)
    assert execution_from_json(through_json(execution_to_json(placed, spec))) == placed


def a_job(**changes) -> Job:
    job = Job(
        id=JOB,
        spec=SPEC,
        state=JobState.FAILED,
        message="no node",
        requester_id=NODE,
        created=1.5,
        modified=2.25,
    )
    return job.replace(**changes)


def an_execution() -> Execution:
    return Execution(
        id=EXECUTION,
        job_id=JOB,
        node_id=NODE,
        state=ExecutionState.COMPLETED,
        created=1.5,
        modified=2.25,
        proposal=Proposal(
            job_id=JOB,
            execution_id=EXECUTION,
            node_id=NODE,
            result_cid=CID,
            output=RunOutput(exit_code=3, stdout="grüße\n".encode(), stdout_truncated=True),
        ),
        published=PublishedResult(
            cid=CID,
            location=SpecConfig(type="ipfs", params={"CID": CID, "Providers": ["/x"]}),
        ),
    )  # fmt: skip


def through_json(value: object) -> object:
    return json.loads(json.dumps(value))


def test_a_job_has_bacalhaus_format():
    shown = job_to_json(a_job())
    assert shown["ID"] == "j-1"
    assert shown["State"] == {"StateType": "Failed", "Message": "no node"}
    assert shown["CreateTime"] == 1_500_000_000
    assert shown["Tasks"][0]["Engine"] == {"Type": "docker", "Params": {"Image": "busybox"}}
    assert shown["RequesterID"] == "12D3KooWa"
    assert shown["Revision"] == 1


def test_a_job_survives_the_round_trip():
    assert job_from_json(through_json(job_to_json(a_job()))) == a_job()


def test_a_job_without_a_name_is_shown_with_its_id():
    nameless = a_job(spec=SPEC.replace(name=""))
    assert job_to_json(nameless)["Name"] == "j-1"
    assert job_from_json(job_to_json(nameless)) == nameless


def test_an_execution_survives_the_round_trip():
    assert execution_from_json(through_json(execution_to_json(an_execution()))) == an_execution()


def test_the_bytes_of_the_inputs_are_shown_if_there_are_inputs():
    bid = an_execution().replace(input_bytes=500, local_input_bytes=200)
    shown = execution_to_json(bid)
    assert (shown["InputBytes"], shown["LocalInputBytes"]) == (500, 200)
    assert execution_from_json(through_json(shown)) == bid
    assert "InputBytes" not in execution_to_json(an_execution())


def test_what_an_execution_used_is_shown_with_its_result_and_after_a_failure():
    usage = Usage(cpu_seconds=1.5, peak_memory=60_000_000)
    execution = an_execution()
    assert execution.proposal is not None
    ran = execution.replace(proposal=execution.proposal.replace(usage=usage))
    failed = an_execution().replace(proposal=None, failed_usage=usage, state=ExecutionState.FAILED)
    for used in (ran, failed):
        shown = execution_to_json(used)
        assert shown["Usage"] == {"CPUSeconds": 1.5, "PeakMemory": 60_000_000}
        assert execution_from_json(through_json(shown)) == used
    assert "Usage" not in execution_to_json(an_execution())


def test_an_execution_without_a_proposal_shows_that_it_has_none():
    bid = an_execution().replace(proposal=None, published=None, state=ExecutionState.BID_ACCEPTED)
    shown = execution_to_json(bid)
    assert (shown["RunOutput"], shown["ResultCID"]) == (None, "")
    assert shown["PublishedResult"] == {"Type": "", "Params": {}}
    assert execution_from_json(shown) == bid


def test_output_that_is_not_utf8_is_shown_with_replacement_characters():
    execution = an_execution()
    assert execution.proposal is not None
    odd = execution.replace(proposal=execution.proposal.replace(output=RunOutput(stdout=b"\xff\n")))
    assert execution_to_json(odd)["RunOutput"]["Stdout"] == "\ufffd\n"


def test_a_result_always_contains_its_cid():
    result = PublishedResult(cid=CID, location=SpecConfig(type="s3", params={"Bucket": "b"}))
    assert result_to_json(result) == {"Type": "s3", "Params": {"Bucket": "b", "CID": CID}}
    assert result_from_json(result_to_json(result)).cid == CID


@pytest.mark.parametrize("value", [None, [], {}, {"ID": 1}, {**job_to_json(a_job()), "CreateTime": "soon"}])
def test_a_malformed_job_is_a_value_error(value):
    with pytest.raises(ValueError, match=r"\w"):
        job_from_json(value)


@pytest.mark.parametrize(
    "error",
    [
        InvalidJob([Fault("Count", "must be at least 1"), Fault("", "bad")]),
        UnknownJob("no job has the id abc"),
        errors.AmbiguousID("several jobs match ab"),
        errors.ContentNotFound("no peer has bafy"),
    ],
)
def test_an_error_survives_the_round_trip(error):
    arrived = error_from_json(through_json(error_to_json(error)), status=400)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert getattr(arrived, "faults", None) == getattr(error, "faults", None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "the node answered with HTTP status 502"),
        ({"Message": ""}, "the node answered with HTTP status 502"),
        ({"Message": "broken", "Kind": "Fault"}, "broken"),
        ({"Message": "broken", "Kind": "BaseException"}, "broken"),
        ({"Message": "broken", "Kind": 3}, "broken"),
    ],
)
def test_any_other_answer_is_an_api_error(body, message):
    error = error_from_json(body, status=502)
    assert type(error) is ApiError
    assert (str(error), error.status) == (message, 502)


@pytest.mark.parametrize("kind", EventKind)
def test_an_event_is_read_as_it_was_written(kind):
    about = ("Running", ExecutionID("e-1"), PeerID("12D3KooWa"))
    for event in (
        HistoryEvent(JobID("j"), 7, 1764489600.25, kind, "as text", *about),
        HistoryEvent(JobID("j"), 1, 0.0, kind, ""),
    ):
        assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


def test_every_kind_of_event_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text().partition("## Events")[2]
    assert [kind for kind in EventKind if f"`{kind}`" not in page] == []
