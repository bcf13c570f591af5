"""What cannot be stored is found, whatever else is in the commit: `storable`, with both real stores."""

from __future__ import annotations

from typing import Any

import pytest

from bacalhau_p2p.bprotocol.delivery import ProcessedMessage
from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.storable import storable
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.compute.store import ComputeStore
from bacalhau_p2p.errors import StoreFailed
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ComputeState
from bacalhau_p2p.requester.store import RequesterStore

SPEC = job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}}]})


def record(name: str, **fields: Any) -> ComputeExecution:
    values = {
        "id": name, "job_id": "j", "requester_id": "r", "spec": SPEC, "state": ComputeState.RUNNING,
        "message": "", "created": 1.0, "modified": 1.0, "expires": 2.0, "input_disk": 0,
        "result_cid": None, "sealed": b"", "published": None, **fields,
    }  # fmt: skip
    return ComputeExecution.model_construct(**values)


@pytest.fixture
def store(tmp_path):
    opened = ComputeStore(tmp_path / "compute.db")
    yield opened
    opened.close()


def test_everything_but_what_cannot_be_stored_is_kept(store):
    good = [record(f"e-{number}") for number in range(5)]
    bad = [record("bad-1", message="\ud800"), record("bad-2", modified=object())]
    processed = (ProcessedMessage("p", b"m" * 16, 1.0), ProcessedMessage("p", object(), 1.0))
    records = (*good[:2], bad[0], *good[2:4], bad[1], good[4])
    kept, left_out = storable(Commit(records=records, processed=processed), store.rehearse)
    assert kept == Commit(records=tuple(good), processed=processed[:1])
    assert [part for part, _ in left_out] == [*bad, processed[1]]
    store.commit(kept, ())
    assert [each.id for each in store.active()] == [f"e-{number}" for number in range(5)]


def test_a_rehearsal_leaves_nothing_behind(store, tmp_path):
    store.rehearse(Commit(records=(record("e-1"),)))
    assert store.active() == []
    requester = RequesterStore(tmp_path / "requester.db")
    requester.rehearse(Commit(processed=(ProcessedMessage("p", b"m" * 16, 1.0),)))
    assert requester.load_messages(1.0) == ([], [])
    requester.close()


def test_a_full_disk_is_no_fault_of_a_record():
    def full(commit: Commit) -> None:
        raise StoreFailed("full")

    with pytest.raises(StoreFailed):
        storable(Commit(records=(record("e-1"),)), full)
