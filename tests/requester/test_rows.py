"""Records as `rows`: nothing is lost, nothing is written twice, no default changes silently."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from bacalhau_p2p.components.packing import Packer
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job, Proposal, PublishedResult, RunOutput
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.requester.rows import Rows, create_rows
from bacalhau_p2p.runtime.database import open_database
from tests.support.results import result_cid

JOB, EXECUTION, NODE = JobID("the-job"), ExecutionID("the-run"), PeerID("the-node")


@pytest.fixture
def db(tmp_path):
    with closing(open_database(tmp_path / "x.db", [create_rows])) as db:
        yield db


@pytest.fixture
def rows(db):
    return Rows(db)


@pytest.fixture
def me(db):
    """The number of this requester's name."""
    db.execute("INSERT INTO name (number, text) VALUES (99, ?)", (NODE,))
    return 99


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


def test_a_job_is_read_as_it_was_written(rows, me):
    spec = job_from_mapping({"Count": 3, "Tasks": [{"Engine": {"Type": "noop"}}]})
    job = Job(
        id=JOB, spec=spec, state=JobState.RUNNING, requester_id=NODE, created=1.5, modified=2.5, revision=4
    )
    *columns, requester, record = rows.of_job(job)
    assert (columns, requester) == ([JOB, "Running", 1.5, 2.5], NODE)
    assert rows.job(*columns, me, record) == job


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"proposal": proposal(), "slot": 0, "outlives_node": True},
        {"published": PublishedResult(cid=result_cid("r"), location=SpecConfig(type="ipfs"))},
        {"state": ExecutionState.FAILED, "permanent": True, "drained": True, "message": "why"},
    ],
)
def test_an_execution_is_read_as_it_was_written(rows, fields):
    written = execution(**fields)
    assert rows.execution(JOB, *rows.of_execution(written)) == written


def test_no_id_is_in_a_row_twice(rows, db):
    *columns, packed = rows.of_execution(execution(proposal=proposal()))
    row = f"{columns} {Packer(db).unpack(packed).decode()}"
    assert (row.count(EXECUTION), row.count(JOB), row.count(NODE)) == (1, 0, 1)


def test_only_what_changes_no_more_is_packed(rows):
    running = execution(state=ExecutionState.RESULT_ACCEPTED, slot=0, proposal=proposal())
    ended = running.replace(state=ExecutionState.COMPLETED)
    assert [type(rows.of_execution(each)[-1]) for each in (running, ended)] == [str, bytes]


def test_names_that_a_later_program_knows_get_numbers_of_their_own(rows, db):
    """A number that was given keeps its name."""
    before = dict(db.execute("SELECT number, text FROM name"))
    db.execute("DELETE FROM name WHERE text = 'Lost'")
    lost = execution(state=ExecutionState.LOST)
    again = Rows(db)
    assert again.execution(JOB, *again.of_execution(lost)) == lost
    after = dict(db.execute("SELECT number, text FROM name"))
    assert {number: name for number, name in after.items() if name != "Lost"}.items() <= before.items()


def test_an_event_is_read_as_it_was_written(rows):
    event = HistoryEvent(JOB, 3, 1.5, EventKind.BID, "bid", ExecutionState.BID_RECEIVED, EXECUTION, NODE)
    for each in (event, event._replace(state="", execution_id="", node_id="")):
        row = rows.of_event(each)
        names = ("number", "time", "kind", "message", "state", "execution", "node")
        assert rows.event(JOB, *(row[name] or None for name in names)) == each


def test_what_is_left_out_of_a_row_means_what_it_meant_when_it_was_written(rows, me):
    """If this fails, a default has changed: a migration must write the earlier value into the rows."""
    required = {"Created": 1.0, "Modified": 1.0}
    _, _, bid, *_ = rows.of_execution(execution(state=ExecutionState.BID_RECEIVED))
    read = rows.execution(JOB, EXECUTION, NODE, bid, None, json.dumps(required))
    assert json.loads(read.model_dump_json(by_alias=True)) == {
        **required, "NodeID": NODE, "State": "BidReceived", "ID": EXECUTION,
        "JobID": JOB, "Message": "", "Proposal": None, "Published": None,
        "OutlivesNode": False, "Slot": None, "Permanent": False, "Drained": False,
        "InputBytes": 0, "LocalInputBytes": 0, "FailedUsage": None, "FailedCID": None,
    }  # fmt: skip
    task = {"Engine": {"Type": "noop"}}
    record = json.dumps({"Spec": {"Tasks": [task]}})
    job = json.loads(rows.job(JOB, "Pending", 1.0, 1.0, me, record).model_dump_json(by_alias=True))
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


@pytest.mark.parametrize("record", ["[]", "no json", b"\xff"])
def test_a_row_that_is_no_record_is_a_value_error(rows, me, record):
    for read in (rows.execution, rows.execution_json):
        with pytest.raises(ValueError, match=r"no object|expected|cannot be unpacked"):
            read(JOB, EXECUTION, NODE, 1, None, record)
    for read in (rows.job, rows.job_json):
        with pytest.raises(ValueError, match=r"no object|expected"):
            read(JOB, "Pending", 1.0, 1.0, me, record)


def test_a_number_without_a_name_is_a_value_error(rows):
    with pytest.raises(ValueError, match="no name has the number 700"):
        rows.brief(NODE, 700, None)


def test_a_row_as_json_is_the_json_of_what_is_read(rows, me):
    written = execution(proposal=proposal(), slot=0)
    shown = rows.execution_json(JOB, *rows.of_execution(written))
    assert shown == written.model_dump(mode="json", by_alias=True)
    spec = job_from_mapping({"Count": 3, "Tasks": [{"Engine": {"Type": "noop"}}]})
    job = Job(id=JOB, spec=spec, state=JobState.RUNNING, requester_id=NODE, created=1.5, modified=2.5)
    *columns, _, record = rows.of_job(job)
    assert rows.job_json(*columns, me, record) == job.model_dump(mode="json", by_alias=True)
