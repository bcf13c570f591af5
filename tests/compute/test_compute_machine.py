"""The compute component's promises, without trio, clock or network."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.bidding import BidStrategy, Offer, bid_delay, bid_probability
from bacalhau_p2p.compute.machine import (
    HEARTBEAT_EVERY,
    KEEP_PROPOSED,
    PREPARE_WITHIN,
    RESERVED_FOR,
    RUN_GRACE,
)
from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import ComputeState
from tests.support.machines.compute_bench import JOB, ComputeBench, no_faults, small_job
from tests.support.machines.machine_bench import said

S = ComputeState
MALLORY = PeerID("mallory")
FIRST = ExecutionID("e-1")
RESULT = PublishedResult(cid="bafy", location=SpecConfig(type="ipfs"))


class Bench(ComputeBench):
    """A node that runs noop jobs."""

    def __init__(self, *, rng: float = 0.5, offer: Offer | None = None) -> None:
        offer = offer or Offer(engines={"noop": no_faults}, publishers={"ipfs": no_faults})
        super().__init__(BidStrategy(offer=lambda: offer, labels={"zone": "a"}), rng=rng)

    def state(self, execution_id: str = FIRST) -> ComputeState:
        return self.machine.executions[ExecutionID(execution_id)].state


def about(kind: type[say.Message], execution_id: str = FIRST, **fields: object) -> say.Message:
    return kind(job_id=JOB, execution_id=ExecutionID(execution_id), **fields)


def sent(actions: Iterable[ev.Action]) -> list[str]:
    return [message.kind for message in said(actions)]


def asked(actions: Iterable[ev.Action], kind: type) -> bool:
    return any(isinstance(action, kind) for action in actions)


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def running(bench):
    bench.announce()
    bench.hear(about(say.BidAccepted))
    bench.give(ev.Prepared(FIRST))
    return bench


@pytest.fixture
def proposed(running):
    running.give(ev.RunFinished(FIRST, "bafy", b"sealed"))
    return running


def test_a_bid_says_whether_the_run_goes_on_without_the_node():
    engines = {"noop": no_faults, "container": no_faults}
    offer = Offer(engines=engines, publishers={"ipfs": no_faults}, outliving=frozenset({"container"}))
    for engine, outlives in (("noop", False), ("container", True)):
        (bid,) = said(Bench(offer=offer).announce(small_job(task={"Engine": {"Type": engine}})))
        assert bid.outlives_node is outlives


# --- the journey ----------------------------------------------------------------------------


def test_an_execution_goes_from_bid_to_completed(bench):
    assert sent(bench.announce()) == ["bid"]
    assert asked(bench.hear(about(say.BidAccepted)), ev.Prepare)
    assert asked(bench.give(ev.Prepared(FIRST)), ev.Run)
    assert sent(bench.give(ev.RunFinished(FIRST, "bafy", b"sealed"))) == ["result_proposed"]
    assert asked(bench.hear(about(say.ResultAccepted)), ev.Publish)
    actions = bench.give(ev.Published(FIRST, RESULT))
    assert sent(actions) == ["result_published"]
    assert asked(actions, ev.CleanUp)
    assert bench.state() is S.COMPLETED


def test_nothing_is_published_before_it_is_accepted(proposed):
    assert not asked(proposed.wait(3600), ev.Publish)
    assert proposed.hear(about(say.BidAccepted)) == []
    assert proposed.state() is S.PROPOSED


def test_second_acceptance_does_not_run_twice(bench):
    bench.announce()
    assert asked(bench.hear(about(say.BidAccepted)), ev.Prepare)
    assert bench.hear(about(say.BidAccepted)) == []


def test_a_rejected_result_is_cleaned_up(proposed):
    assert asked(proposed.hear(about(say.ResultRejected, reason="differs")), ev.CleanUp)
    assert proposed.state() is S.REJECTED


@pytest.mark.parametrize("steps", range(5))
def test_cancelling_stops_whatever_is_under_way(steps):
    bench = Bench()
    journey = [
        lambda: bench.announce(),
        lambda: bench.hear(about(say.BidAccepted)),
        lambda: bench.give(ev.Prepared(FIRST)),
        lambda: bench.give(ev.RunFinished(FIRST, "bafy", b"sealed")),
        lambda: bench.hear(about(say.ResultAccepted)),
    ]
    for step in journey[: steps + 1]:
        step()
    actions = bench.hear(about(say.CancelExecution, reason="the job is Stopped"))
    assert asked(actions, ev.Stop)
    assert asked(actions, ev.CleanUp)
    assert bench.state() is S.CANCELLED
    assert bench.machine.capacity.holders == frozenset()


# --- capacity and bidding -------------------------------------------------------------------


def test_a_bid_reserves_room_and_a_full_node_says_it_is_busy(bench):
    bench.announce(job_id="j-1")
    bench.announce(job_id="j-2")
    (decline,) = said(bench.announce(job_id="j-3"))
    assert (decline.kind, decline.reason, decline.busy) == ("bid_declined", "is busy", True)
    assert bench.machine.capacity.reserved.cpu == 1


def test_a_job_larger_than_the_node_is_declined_for_good(bench):
    (decline,) = said(bench.announce(small_job(cpu="64")))
    assert (decline.reason, decline.busy) == ("is too small for the resources asked for", False)


def test_room_is_given_back_when_a_bid_is_rejected_or_never_answered(bench):
    bench.announce(job_id="j-1")
    bench.announce(job_id="j-2")
    bench.hear(about(say.BidRejected))
    assert bench.machine.capacity.holders == {"e-2"}
    bench.wait(RESERVED_FOR + 1)
    assert bench.state("e-2") is S.EXPIRED
    assert bench.machine.capacity.reserved == Resources()


def test_room_is_given_back_when_the_run_ends(running):
    assert running.machine.capacity.holders == {FIRST}
    running.give(ev.RunFinished(FIRST, "bafy", b"sealed"))
    assert running.machine.capacity.holders == frozenset()


def test_one_bid_a_job_while_it_is_open(bench):
    assert sent(bench.announce()) == ["bid"]
    assert bench.announce(round=2) == []
    bench.hear(about(say.BidRejected))
    assert sent(bench.announce(round=3)) == ["bid"]


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ({"task": {"Engine": {"Type": "docker", "Params": {"Image": "x"}}}}, "has no docker engine"),
        (
            {
                "task": {
                    "InputSources": [{"Target": "/in", "Source": {"Type": "ipfs", "Params": {"CID": "bafy"}}}]
                }
            },
            "has no ipfs storage provider",
        ),
        (
            {"Constraints": [{"Key": "zone", "Operator": "=", "Values": ["b"]}]},
            "does not match the job's constraints",
        ),
        ({"task": {"Network": {"Type": "Full"}}}, "accepts no jobs that want a network"),
    ],
)
def test_a_job_that_this_node_will_not_run_is_declined_with_the_reason(bench, job, reason):
    (decline,) = said(bench.announce(small_job(**job)))
    assert (decline.kind, decline.reason, decline.busy) == ("bid_declined", reason, False)


def test_an_adapters_fault_is_a_reason_by_its_path():
    offer = Offer(
        engines={"noop": lambda config: [Fault("Params.ExitCode", "not a number")]},
        publishers={"ipfs": no_faults},
    )
    (decline,) = said(Bench(offer=offer).announce())
    assert decline.reason == "Tasks[0].Engine.Params.ExitCode: not a number"


def test_refusals_are_silent_unless_asked_for(bench):
    assert bench.announce(small_job(cpu="64"), answers_wanted=False) == []


def test_in_a_large_network_few_nodes_bid_and_a_little_later():
    eager, shy = Bench(rng=0.05), Bench(rng=0.95)
    assert shy.announce(eligible=100) == []
    assert eager.announce(eligible=100) == []
    assert sent(eager.wait(1)) == ["bid"]
    assert sent(shy.wait(1)) == []


def test_a_closed_job_gets_no_late_bid():
    bench = Bench(rng=0.05)
    bench.announce(eligible=100)
    bench.hear(say.JobClosed(job_id=JOB))
    assert bench.wait(10) == []


def test_bids_are_as_many_as_are_wanted_and_more_each_round():
    assert bid_probability(bids_wanted=3, eligible=0, round_number=1) == 1
    assert bid_probability(bids_wanted=3, eligible=9, round_number=1) == 1
    assert bid_probability(bids_wanted=3, eligible=90, round_number=1) == pytest.approx(0.1)
    assert bid_probability(bids_wanted=3, eligible=90, round_number=3) == pytest.approx(0.4)
    assert bid_probability(bids_wanted=3, eligible=90, round_number=50) == 1
    assert bid_delay(bids_wanted=3, eligible=9, load=1, rng=1) == 0
    busy, idle = (bid_delay(bids_wanted=3, eligible=90, load=load, rng=0.5) for load in (1, 0))
    assert busy > idle > 0


def test_a_node_that_stops_bids_no_more_but_finishes(running):
    running.give(ev.StopBidding())
    assert running.announce(job_id="j-2") == []
    assert sent(running.give(ev.RunFinished(FIRST, "bafy", b"sealed"))) == ["result_proposed"]


# --- trouble --------------------------------------------------------------------------------


def test_a_failed_step_is_told_with_its_reason(running):
    (failed,) = said(running.give(ev.StepFailed(FIRST, "exec: no such file", permanent=True)))
    assert (failed.reason, failed.permanent) == ("exec: no such file", True)
    assert running.state() is S.FAILED


def test_a_hanging_prepare_is_ended(bench):
    bench.announce()
    bench.hear(about(say.BidAccepted))
    actions = bench.wait(PREPARE_WITHIN + 1)
    assert asked(actions, ev.Stop)
    assert bench.machine.executions == {} or bench.state() is S.FAILED
    assert "execution_failed" in sent(actions)


def test_an_executor_that_does_not_end_a_run_is_stopped(running):
    timeout = running.machine.executions[FIRST].spec.execution_timeout
    assert not asked(running.wait(timeout + RUN_GRACE - 1), ev.Stop)
    actions = running.wait(2)
    assert asked(actions, ev.Stop)
    assert "execution_failed" in sent(actions)


def test_a_result_waits_a_day_for_its_requester(proposed):
    proposed.wait(KEEP_PROPOSED - 1)
    assert proposed.state() is S.PROPOSED
    assert asked(proposed.wait(2), ev.CleanUp)
    assert proposed.state() is S.EXPIRED


def test_heartbeats_name_everything_under_way_and_stop_with_it(running):
    (beat,) = said(running.wait(HEARTBEAT_EVERY))
    assert [(line.execution_id, line.state) for line in beat.executions] == [(FIRST, S.RUNNING)]
    running.hear(about(say.CancelExecution))
    assert sent(running.wait(60)) == []


def test_a_requester_that_takes_up_an_expired_bid_is_told(bench):
    bench.announce()
    bench.wait(RESERVED_FOR + 1)
    (failed,) = said(bench.hear(about(say.BidAccepted)))
    assert failed.kind == "execution_failed"
    assert "the bid was not answered" in failed.reason


def test_a_requester_that_asks_for_a_forgotten_execution_is_told(bench):
    assert sent(bench.hear(about(say.ResultAccepted, "e-77"))) == ["execution_failed"]
    assert sent(bench.hear(about(say.CancelExecution, "e-77"))) == []


def test_only_the_requester_of_an_execution_commands_it(running):
    assert running.hear(about(say.CancelExecution), author=MALLORY) == []
    assert running.hear(about(say.ResultAccepted), author=MALLORY) == []
    assert running.state() is S.RUNNING
    assert running.machine.ignored == 2


def test_steps_that_report_too_late_change_nothing(running):
    running.hear(about(say.CancelExecution))
    assert running.give(ev.RunFinished(FIRST, "bafy", b"sealed")) == []
    assert running.state() is S.CANCELLED


def test_ended_executions_are_forgotten_after_a_while(proposed):
    proposed.hear(about(say.ResultRejected))
    proposed.wait(1000)
    assert proposed.machine.executions == {}
    assert proposed.machine.next_deadline() is None


def test_a_run_that_ended_while_its_node_was_dead_is_still_collected(running):
    execution = running.machine.executions[FIRST]
    again = Bench()
    again.now = execution.expires + 100
    assert asked(again.give(ev.Resumed(execution)), ev.Reattach)
    assert not asked(again.wait(RUN_GRACE - 1), ev.Stop)
    assert sent(again.give(ev.RunFinished(FIRST, "bafy", b"sealed"))) == ["result_proposed"]
