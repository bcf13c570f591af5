"""What the requester's `store` keeps, and how it reads what earlier versions wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job, Proposal
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.requester.store import _MIGRATIONS, RequesterStore
from bacalhau_p2p.runtime.database import open_database
from tests.support.results import result_cid

S = ExecutionState
JOB = JobID("j-1")


def execution(name: str, state: ExecutionState, **fields: object) -> Execution:
    node = PeerID(f"node-{name}")
    made = {"created": float(ord(name)), "modified": float(ord(name)), **fields}
    return Execution(id=ExecutionID(name), job_id=JOB, node_id=node, state=state, **made)


def job(count: int) -> Job:
    spec = job_from_mapping({"Count": count, "Tasks": [{"Engine": {"Type": "noop"}}]})
    return Job(
        id=JOB, spec=spec, state=JobState.RUNNING, requester_id=PeerID("me"), created=1.0, modified=1.0
    )


def write_version_1(path: Path, count: int, *executions: Execution) -> None:
    """As a program wrote it that knew neither slots nor who had said what."""
    later = {"Slot", "Permanent", "Drained", "OutlivesNode"}
    db = open_database(path, _MIGRATIONS[:1])
    db.execute(
        "INSERT INTO job (id, state, created, record) VALUES (?, ?, ?, ?)",
        (JOB, "Running", 1.0, job(count).model_dump_json(by_alias=True).encode()),
    )
    for each in executions:
        record = json.loads(each.model_dump_json(by_alias=True))
        old = {name: value for name, value in record.items() if name not in later}
        db.execute(
            "INSERT INTO execution (id, job_id, created, record) VALUES (?, ?, ?, ?)",
            (each.id, JOB, each.created, json.dumps(old).encode()),
        )
    db.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "requester.db"


def test_all_that_is_known_of_an_attempt_is_kept(path):
    kept = [
        execution("a", S.FAILED, slot=1, permanent=True, message="no such image"),
        execution("b", S.LOST, slot=0, drained=True),
        execution("c", S.BID_ACCEPTED, slot=0, outlives_node=True),
        execution("d", S.BID_REJECTED),
    ]
    store = RequesterStore(path)
    store.commit(Commit(records=[job(2), *kept]), delivered=())
    store.close()
    again = RequesterStore(path)
    assert again.executions(JOB) == kept
    again.close()


def test_slots_are_numbered_in_what_an_earlier_version_wrote(path):
    proposal = Proposal(
        job_id=JOB, execution_id=ExecutionID("c"), node_id=PeerID("node-c"), result_cid=result_cid("result")
    )
    write_version_1(
        path,
        3,
        execution("a", S.FAILED),
        execution("b", S.BID_REJECTED),
        execution("c", S.LOST, proposal=proposal),
        execution("d", S.RESULT_ACCEPTED),
        execution("e", S.BID_ACCEPTED),
    )
    store = RequesterStore(path)
    assert {e.id: e.slot for e in store.executions(JOB)} == {"a": None, "b": None, "c": 2, "d": 0, "e": 1}
    assert store.executions(JOB)[2].proposal == proposal
    store.close()


def test_no_more_slots_are_numbered_than_there_are(path):
    write_version_1(path, 1, execution("a", S.BID_ACCEPTED), execution("b", S.BID_ACCEPTED))
    store = RequesterStore(path)
    assert [e.slot for e in store.executions(JOB)] == [0, None]
    store.close()


def test_an_earlier_program_refuses_what_this_one_wrote(path):
    RequesterStore(path).close()
    with pytest.raises(SettingsError, match="later version"):
        open_database(path, _MIGRATIONS[:1])


@pytest.mark.parametrize("damage", [{"Slot": -1}, {"Slot": "first"}, {"Permanent": "perhaps"}, {"Turns": 3}])
def test_a_record_that_is_not_what_it_should_be_is_set_aside_and_not_guessed_at(path, damage):
    store = RequesterStore(path)
    record = json.loads(execution("a", S.BID_ACCEPTED, slot=0).model_dump_json(by_alias=True))
    store.db.execute(
        "INSERT INTO execution (id, job_id, created, record) VALUES (?, ?, ?, ?)",
        ("a", JOB, 1.0, json.dumps(record | damage).encode()),
    )
    assert store.executions(JOB) == []
    assert store.db.execute("SELECT key FROM quarantine").fetchall() == [('{"job_id": "j-1", "id": "a"}',)]
    store.close()


def test_jobs_are_deleted_some_time_after_they_have_ended_and_others_never(path):
    store = RequesterStore(path, keep_jobs=100)
    ended = {"state": JobState.COMPLETED, "created": 1.0}
    old = job(1).replace(id=JobID("old"), modified=50.0, **ended)
    recent = job(1).replace(id=JobID("recent"), modified=90.0, **ended)
    running = job(1).replace(id=JobID("running"))
    of_old = execution("a", S.COMPLETED).replace(job_id=old.id)
    store.commit(Commit(records=(old, recent, running, of_old)), delivered=())
    store.prune(now=160.0)
    assert {each.id for each in store.jobs(limit=9).jobs} == {"recent", "running"}
    assert store.executions(old.id) == []
    store.close()
