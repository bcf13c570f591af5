from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import OutboxMessage, ProcessedMessage
from bacalhau_p2p.bprotocol.messages import BidAccepted, ResultPublished
from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.store import Retention
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.compute.store import FORGET_ENDED, ComputeStore
from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import NO_SPEC, SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ComputeState
from bacalhau_p2p.requester.store import RequesterStore
from bacalhau_p2p.runtime.database import connect
from tests.support.results import result_cid

SPEC = job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}}]})
REQUESTER = PeerID("requester")


def execution(
    name: str, state: ComputeState = ComputeState.RUNNING, modified: float = 1.0, **fields: object
) -> ComputeExecution:
    return ComputeExecution(
        id=ExecutionID(name),
        job_id=JobID("j-1"),
        requester_id=REQUESTER,
        spec=SPEC,
        state=state,
        created=1.0,
        modified=modified,
        expires=99.0,
        **fields,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "compute.db"


@pytest.fixture
def store(path: Path) -> Iterator[ComputeStore]:
    store = ComputeStore(path)
    yield store
    store.close()


def ids(executions: list[ComputeExecution]) -> list[str]:
    return [each.id for each in executions]


def test_an_execution_is_read_back_by_the_next_run(path, store):
    location = SpecConfig(type="ipfs", params={"CID": "bafkqaaa"})
    stored = execution(
        "a",
        ComputeState.PUBLISHING,
        message="publishing",
        input_disk=7,
        result_cid="bafy",
        sealed=b"\x00\xff",
        published=PublishedResult(cid=result_cid("result"), location=location),
    )
    store.commit(Commit(records=(stored,)), delivered=())
    store.close()
    again = ComputeStore(path)
    assert again.active() == [stored]
    again.close()


def test_the_latest_version_of_an_execution_replaces_earlier_ones(store):
    store.commit(Commit(records=(execution("a", ComputeState.PREPARING),)), delivered=())
    latest = execution("a", ComputeState.RUNNING, modified=2.0)
    store.commit(Commit(records=(latest,)), delivered=())
    assert store.active() == [latest]


def test_active_executions_are_ordered_by_their_last_change(store):
    records = (execution("late", modified=3.0), execution("early", modified=2.0))
    store.commit(Commit(records=records), delivered=())
    assert ids(store.active()) == ["early", "late"]


@pytest.mark.parametrize("state", list(ComputeState))
def test_an_execution_is_either_active_or_ended(store, state):
    store.commit(Commit(records=(execution("a"),)), delivered=())
    store.commit(Commit(records=(execution("a", state),)), delivered=())
    assert ids(store.active()) == ([] if state.terminal else ["a"])
    assert (store.ended(ExecutionID("a")) is not None) == state.terminal


def test_an_ended_execution_is_kept_without_what_strangers_choose_the_size_of(store):
    ended = execution("a", ComputeState.FAILED, message="no such image", sealed=b"\x00" * 9, result_cid="b")
    store.commit(Commit(records=(ended,)), delivered=())
    assert store.ended(ExecutionID("a")) == ended.replace(spec=NO_SPEC, sealed=b"")


def prune_all(store: ComputeStore, now: float) -> None:
    while store.prune(now):
        pass


def kept(store: ComputeStore) -> set[str]:
    return {name for (name,) in store.db.execute("SELECT id FROM ended")}


def test_ended_executions_are_forgotten_after_a_day_and_active_ones_never(store):
    records = (
        execution("old", ComputeState.FAILED, modified=1.0),
        execution("recent", ComputeState.COMPLETED, modified=2.0),
        execution("running", modified=1.0),
    )
    store.commit(Commit(records=records), delivered=())
    prune_all(store, 1.5 + FORGET_ENDED)
    assert kept(store) == {"recent"}
    assert ids(store.active()) == ["running"]


def test_the_executions_that_ended_first_are_forgotten_when_there_are_too_many(path):
    with closing(ComputeStore(path, keep_ended=Retention(count=2))) as store:
        for name in "abcd":
            store.commit(Commit(records=(execution(name, ComputeState.COMPLETED),)), delivered=())
        store.commit(Commit(records=(execution("running"),)), delivered=())
        prune_all(store, now=2.0)
        assert kept(store) == {"c", "d"}
        assert ids(store.active()) == ["running"]


def test_an_execution_is_kept_until_its_requester_knows_how_it_ended(path):
    with closing(ComputeStore(path, keep_ended=Retention(count=0))) as store:
        published = ResultPublished(
            job_id=JobID("j-1"),
            execution_id=ExecutionID("a"),
            result=PublishedResult(cid=result_cid("r"), location=SpecConfig(type="ipfs")),
        )
        envelope = Envelope(id=MessageID(b"m" * 16), message=published, to=REQUESTER)
        sent = OutboxMessage(REQUESTER, envelope, give_up_at=50.0)
        records = [execution(name, ComputeState.COMPLETED) for name in "ab"]
        store.commit(Commit(records=records, outbox=(sent,)), delivered=())
        prune_all(store, now=2.0)
        assert kept(store) == {"a"}
        store.commit(Commit(), delivered=[envelope.id])
        prune_all(store, now=2.0)
        assert kept(store) == set()


def test_what_an_earlier_version_wrote_is_refused(path):
    db = connect(path)
    db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(SettingsError, match=r"compute\.db was written by an earlier version .*move the file"):
        ComputeStore(path)


def test_messages_are_stored_with_the_executions_and_removed_once_delivered(store):
    message_id = MessageID(b"m" * 16)
    envelope = Envelope(
        id=message_id, message=BidAccepted(job_id=JobID("j-1"), execution_id=ExecutionID("a")), to=REQUESTER
    )
    sent = OutboxMessage(REQUESTER, envelope, give_up_at=50.0)
    received = ProcessedMessage(REQUESTER, MessageID(b"r" * 16), since=1.0)
    store.commit(Commit(records=(execution("a"),), outbox=(sent,), processed=(received,)), delivered=())
    outbox, processed = store.load_messages(now=2.0)
    assert [(each.to, each.envelope.id) for each in outbox] == [(REQUESTER, message_id)]
    assert processed == [received]
    store.commit(Commit(), delivered=[message_id])
    assert store.load_messages(now=2.0)[0] == []


def test_the_database_of_another_component_is_rejected(tmp_path):
    path = tmp_path / "requester.db"
    RequesterStore(path).close()
    with pytest.raises(SettingsError, match=str(path)):
        ComputeStore(path)
