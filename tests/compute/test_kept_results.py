"""Results without a verdict are bounded for each requester and for all: `kept_results`."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import announcements, kept_results
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.transitions import ResultDisplaced
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.state import ComputeState, ExecutionState
from bacalhau_p2p.model.validation import size_of
from tests.support.machines.compute_bench import ALICE, ComputeBench, small_job
from tests.support.machines.machine_bench import messages_in

BOB, CAROL = PeerID("bob"), PeerID("carol")
SPEC = small_job(cpu="0.01")
GIB = 2**30

S = ComputeState


@pytest.fixture
def bench():
    return ComputeBench(disk=16 * GIB)


def leave(bench: ComputeBench, author: PeerID = ALICE, *, size: int = 0, sealed: bytes = b"sealed") -> str:
    """Have a job run whose requester does not judge the result. Returns the id of its execution."""
    name = f"j-{len(bench.machine.executions)}"
    (bid,) = messages_in(bench.announce(SPEC, name, author=author))
    accept(bench, bid, author)
    bench.handle(ev.Prepared(bid.execution_id))
    bench.handle(ev.RunFinished(bid.execution_id, "bafy", sealed, size))
    return bid.execution_id


def accept(bench: ComputeBench, bid: say.Bid, author: PeerID) -> None:
    bench.receive(say.BidAccepted(job_id=bid.job_id, execution_id=bid.execution_id), author)


def states(bench: ComputeBench, *executions: str) -> list[ComputeState]:
    return [bench.state(execution) for execution in executions]


def test_a_requester_that_leaves_too_many_results_unjudged_loses_its_oldest(bench, monkeypatch):
    monkeypatch.setattr(kept_results, "MAX_RESULTS_OF_ONE", 2)
    of_bob = leave(bench, BOB)
    first, second, third = (leave(bench) for _ in range(3))
    assert states(bench, of_bob, first, second, third) == [S.PROPOSED, S.EXPIRED, S.PROPOSED, S.PROPOSED]
    assert bench.machine.executions[ExecutionID(first)].message == ResultDisplaced().reason


def test_the_requester_with_most_results_loses_its_oldest_when_all_have_too_many(bench, monkeypatch):
    monkeypatch.setattr(kept_results, "MAX_RESULTS", 3)
    of_bob = leave(bench, BOB)
    first, second = leave(bench), leave(bench)
    of_carol = leave(bench, CAROL)
    assert states(bench, of_bob, first, second, of_carol) == [S.PROPOSED, S.EXPIRED, S.PROPOSED, S.PROPOSED]


@pytest.mark.parametrize(
    ("limit", "result"),
    [
        ("MAX_RECORD_BYTES_OF_ONE", {"sealed": b"x" * 1000}),
        ("DISK_SHARE_OF_ONE", {"size": 3 * GIB}),
    ],
)
def test_the_bytes_of_results_and_of_their_records_count(bench, monkeypatch, limit, result):
    monkeypatch.setattr(kept_results, "MAX_RECORD_BYTES_OF_ONE", size_of(SPEC) * 2 + 1500)
    first, second = leave(bench, **result), leave(bench, **result)
    assert states(bench, first, second) == [S.EXPIRED, S.PROPOSED]


def test_the_only_result_of_a_requester_may_be_large(bench):
    large = leave(bench, size=15 * GIB)
    assert bench.state(large) is S.PROPOSED
    assert states(bench, leave(bench, BOB), large) == [S.PROPOSED, S.EXPIRED]  # until others need the room


def test_results_that_are_being_published_count(bench, monkeypatch):
    monkeypatch.setattr(kept_results, "MAX_RESULTS_OF_ONE", 1)
    first = leave(bench)
    job_id = bench.machine.executions[ExecutionID(first)].job_id
    bench.receive(say.ResultAccepted(job_id=job_id, execution_id=ExecutionID(first)))
    second = leave(bench)
    assert states(bench, first, second) == [S.FAILED, S.PROPOSED]


def test_judged_results_make_room(bench, monkeypatch):
    monkeypatch.setattr(kept_results, "MAX_RESULTS_OF_ONE", 2)
    first, second = leave(bench), leave(bench)
    job_id = bench.machine.executions[ExecutionID(first)].job_id
    bench.receive(say.ResultRejected(job_id=job_id, execution_id=ExecutionID(first)))
    third = leave(bench)
    assert states(bench, first, second, third) == [S.REJECTED, S.PROPOSED, S.PROPOSED]


def test_a_requester_learns_that_its_result_was_displaced_when_it_asks(bench, monkeypatch):
    monkeypatch.setattr(kept_results, "MAX_RESULTS_OF_ONE", 1)
    first = ExecutionID(leave(bench))
    leave(bench)
    view = say.ExecutionView(job_id=JobID("j-0"), execution_id=first, state=ExecutionState.BID_ACCEPTED)
    (failed,) = messages_in(bench.receive(say.Reconcile(executions=(view,))))
    assert isinstance(failed, say.ExecutionFailed)
    assert ResultDisplaced().reason in failed.reason
    assert not failed.drained


def test_ten_thousand_results_without_a_verdict_keep_no_other_requester_out(bench, monkeypatch):
    monkeypatch.setattr(announcements, "MAX_UNFINISHED", 10)
    monkeypatch.setattr(kept_results, "MAX_RESULTS", 5)
    for number in range(12):
        leave(bench, PeerID(f"mallory-{number % 3}"))
    assert bench.state(leave(bench, BOB)) is S.PROPOSED
    proposed = [e for e in bench.machine.executions.values() if e.state is S.PROPOSED]
    assert len(proposed) == kept_results.MAX_RESULTS


def test_results_of_an_earlier_process_count(bench, monkeypatch):
    first = leave(bench)
    record = bench.machine.executions[ExecutionID(first)]
    restarted = ComputeBench(disk=16 * GIB)
    restarted.handle(ev.Resumed(record.replace(id=ExecutionID("e-0"))))
    monkeypatch.setattr(kept_results, "MAX_RESULTS_OF_ONE", 1)
    second = leave(restarted)
    assert states(restarted, "e-0", second) == [S.EXPIRED, S.PROPOSED]
