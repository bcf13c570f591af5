"""What runs for a requester that is gone is stopped, and nothing else."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.presence import GONE_AFTER
from bacalhau_p2p.compute.transitions import PREPARE_TIMEOUT
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.state import ComputeState
from tests.support.machines.compute_bench import ALICE, FIRST, JOB, ComputeBench, message_about, small_job
from tests.support.machines.machine_bench import messages_in

BOB = PeerID("bob")
LONG = small_job(cpu="0.2", task={"Timeouts": {"ExecutionTimeout": 10 * GONE_AFTER}})


def running(bench: ComputeBench, name: str, author: PeerID = ALICE) -> ExecutionID:
    (bid,) = messages_in(bench.announce(LONG, f"j-{name}", author=author))
    bench.receive(say.BidAccepted(job_id=bid.job_id, execution_id=bid.execution_id), author)
    bench.handle(ev.Prepared(bid.execution_id))
    return bid.execution_id


def pass_time(bench: ComputeBench, until: float) -> list[ev.Action]:
    """Handle every deadline until then."""
    actions: list[ev.Action] = []
    while (due := bench.machine.next_deadline()) is not None and due <= until:
        bench.now = max(bench.now, due)
        actions += bench.handle(ev.TimePassed())
    bench.now = until
    return actions


@pytest.fixture
def bench():
    return ComputeBench()


def test_runs_of_a_requester_that_is_silent_for_an_hour_are_stopped_and_handed_back(bench):
    began = bench.now
    first, second, of_bob = (
        running(bench, name, who) for name, who in (("1", ALICE), ("2", ALICE), ("3", BOB))
    )
    bench.now = began + GONE_AFTER / 2
    bench.receive(say.Reconcile(executions=()), BOB)
    pass_time(bench, began + GONE_AFTER - 1)
    assert bench.machine.capacity.holders == {first, second, of_bob}
    actions = pass_time(bench, began + GONE_AFTER)
    assert [action.execution_id for action in actions if isinstance(action, ev.Stop)] == [first, second]
    assert [action.execution.id for action in actions if isinstance(action, ev.CleanUp)] == [first, second]
    assert ev.ReportGone(ALICE, GONE_AFTER, (first, second)) in actions
    failed = [message for message in messages_in(actions) if isinstance(message, say.ExecutionFailed)]
    assert [(each.execution_id, each.drained) for each in failed] == [(first, True), (second, True)]
    assert failed[0].reason == "no message from its requester for 3600 s"
    assert bench.machine.capacity.holders == {of_bob}
    pass_time(bench, began + 1.5 * GONE_AFTER)
    assert bench.state(of_bob) is ComputeState.CANCELLED


@pytest.mark.parametrize(
    "message",
    [
        say.Reconcile(executions=()),
        say.JobClosed(job_id=JOB),
        say.CancelExecution(job_id=JOB, execution_id=ExecutionID("another")),
    ],
)
def test_any_message_shows_that_a_requester_is_there(bench, message):
    execution_id = running(bench, "1")
    for _ in range(10):
        pass_time(bench, bench.now + GONE_AFTER - 1)
        bench.receive(message)
    assert bench.state(execution_id) is ComputeState.RUNNING


def test_what_is_only_prepared_is_stopped_too():
    bench = ComputeBench(gone_after=PREPARE_TIMEOUT / 2)
    bench.announce(LONG)
    bench.receive(message_about(say.BidAccepted))
    pass_time(bench, bench.now + PREPARE_TIMEOUT / 2)
    assert bench.state() is ComputeState.CANCELLED


def test_a_result_is_kept_for_a_requester_that_is_gone(bench):
    execution_id = running(bench, "1")
    bench.handle(ev.RunFinished(execution_id, "cid", b"sealed"))
    pass_time(bench, bench.now + 3 * GONE_AFTER)
    assert bench.state(execution_id) is ComputeState.PROPOSED


def test_a_node_that_was_restarted_waits_as_long_again(bench):
    execution_id = running(bench, "1")
    record = bench.machine.executions[execution_id]
    again = ComputeBench()
    again.now = bench.now + 2 * GONE_AFTER
    again.handle(ev.Resumed(record))
    pass_time(again, again.now + GONE_AFTER - 1)
    assert again.state(execution_id) is ComputeState.RUNNING
    pass_time(again, again.now + 1)
    assert again.state(execution_id) is ComputeState.CANCELLED


def test_a_later_run_of_a_requester_that_was_gone_is_watched_anew(bench):
    running(bench, "1")
    pass_time(bench, bench.now + GONE_AFTER)
    second = running(bench, "2")
    pass_time(bench, bench.now + GONE_AFTER - 1)
    assert bench.state(second) is ComputeState.RUNNING
    pass_time(bench, bench.now + 1)
    assert bench.state(second) is ComputeState.CANCELLED


def test_zero_never_stops_anything():
    bench = ComputeBench(gone_after=0)
    bench.announce(LONG)
    bench.receive(message_about(say.BidAccepted))
    bench.handle(ev.Prepared(FIRST))
    pass_time(bench, bench.now + 5 * GONE_AFTER)
    assert bench.state() is ComputeState.RUNNING
