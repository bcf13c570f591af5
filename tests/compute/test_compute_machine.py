"""The compute component's promises, without trio, clock or network."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.bidding import Assessment
from bacalhau_p2p.compute.transitions import (
    HEARTBEAT_INTERVAL,
    KEEP_PROPOSED_FOR,
    PREPARE_TIMEOUT,
    RESERVED_FOR,
    RUN_GRACE,
)
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import ComputeState
from tests.support.machines.compute_bench import FIRST, JOB, ComputeBench, about, small_job
from tests.support.machines.machine_bench import said

S = ComputeState
MALLORY = PeerID("mallory")
RESULT = PublishedResult(cid="bafy", location=SpecConfig(type="ipfs"))


def sent(actions: Iterable[ev.Action]) -> list[str]:
    return [message.kind for message in said(actions)]


def asked(actions: Iterable[ev.Action], kind: type) -> bool:
    return any(isinstance(action, kind) for action in actions)


@pytest.fixture
def bench():
    return ComputeBench()


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


@pytest.mark.parametrize("outlives", [False, True])
def test_a_bid_says_whether_the_run_goes_on_without_the_node(bench, outlives):
    (bid,) = said(bench.announce(assessment=Assessment(outlives_node=outlives)))
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


JOURNEY = [
    lambda bench: bench.announce(),
    lambda bench: bench.hear(about(say.BidAccepted)),
    lambda bench: bench.give(ev.Prepared(FIRST)),
    lambda bench: bench.give(ev.RunFinished(FIRST, "bafy", b"sealed")),
    lambda bench: bench.hear(about(say.ResultAccepted)),
]
"""From nothing to Bid, Preparing, Running, Proposed and Publishing."""
STATES = [S.BID, S.PREPARING, S.RUNNING, S.PROPOSED, S.PUBLISHING]


def in_state(state: ComputeState) -> ComputeBench:
    bench = ComputeBench()
    for step in JOURNEY[: STATES.index(state) + 1]:
        step(bench)
    assert bench.state() is state
    return bench


UNDER_WAY = {S.PREPARING, S.RUNNING, S.PUBLISHING}
"""States in which a step is under way."""


@pytest.mark.parametrize("state", STATES)
def test_cancelling_stops_whatever_is_under_way(state):
    bench = in_state(state)
    actions = bench.hear(about(say.CancelExecution, reason="the job is Stopped"))
    assert asked(actions, ev.Stop) is (state in UNDER_WAY)
    assert asked(actions, ev.CleanUp)
    assert bench.state() is S.CANCELLED
    assert bench.machine.capacity.holders == frozenset()


@pytest.mark.parametrize("state", STATES)
def test_a_node_that_stops_hands_back_whatever_it_has(state):
    bench = in_state(state)
    actions = bench.give(ev.HandBack())
    (failed,) = said(actions)
    assert (failed.kind, failed.drained, failed.permanent) == ("execution_failed", True, False)
    assert asked(actions, ev.Stop) is (state in UNDER_WAY)
    assert asked(actions, ev.CleanUp)
    assert bench.state() is S.CANCELLED
    assert bench.machine.capacity.holders == frozenset()


@pytest.mark.parametrize("state", STATES)
def test_a_state_that_lasts_too_long_ends_the_execution(state):
    bench = in_state(state)
    bench.now = bench.machine.executions[FIRST].expires
    actions = bench.give(ev.TimePassed())
    assert asked(actions, ev.Stop) is (state in UNDER_WAY)
    assert asked(actions, ev.CleanUp)
    assert bench.state() is (S.FAILED if state in UNDER_WAY else S.EXPIRED)
    assert ("execution_failed" in sent(actions)) is (state in UNDER_WAY)


# --- capacity and bidding -------------------------------------------------------------------


def test_a_bid_reserves_room_and_a_full_node_says_it_is_busy(bench):
    bench.announce(job_id="j-1")
    bench.announce(job_id="j-2")
    (decline,) = said(bench.announce(job_id="j-3"))
    assert (decline.kind, decline.reason, decline.busy) == ("bid_declined", "is busy", True)
    assert bench.machine.capacity.reserved.cpu == 1


def test_a_job_larger_than_the_node_is_declined_for_good(bench):
    (decline,) = said(bench.announce(small_job(cpu="64")))
    assert (decline.reason, decline.busy) == ("is too small for the requested resources", False)


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


def test_refusals_are_silent_unless_asked_for(bench):
    assert bench.announce(small_job(cpu="64"), answers_wanted=False) == []


def test_in_a_large_network_few_nodes_bid_and_a_little_later():
    eager, shy = ComputeBench(rng=0.05), ComputeBench(rng=0.95)
    assert shy.announce(eligible=100) == []
    assert eager.announce(eligible=100) == []
    assert sent(eager.wait(1)) == ["bid"]
    assert sent(shy.wait(1)) == []


def test_a_closed_job_gets_no_late_bid():
    bench = ComputeBench(rng=0.05)
    bench.announce(eligible=100)
    bench.hear(say.JobClosed(job_id=JOB))
    assert bench.wait(10) == []


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
    actions = bench.wait(PREPARE_TIMEOUT + 1)
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
    proposed.wait(KEEP_PROPOSED_FOR - 1)
    assert proposed.state() is S.PROPOSED
    assert asked(proposed.wait(2), ev.CleanUp)
    assert proposed.state() is S.EXPIRED


def test_heartbeats_name_everything_under_way_and_stop_with_it(running):
    (beat,) = said(running.wait(HEARTBEAT_INTERVAL))
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
    assert running.machine.ignored == {
        "CancelExecution from another requester": 1,
        "ResultAccepted from another requester": 1,
    }


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
    again = ComputeBench()
    again.now = execution.expires + 100
    assert asked(again.give(ev.Resumed(execution)), ev.Reattach)
    assert not asked(again.wait(RUN_GRACE - 1), ev.Stop)
    assert sent(again.give(ev.RunFinished(FIRST, "bafy", b"sealed"))) == ["result_proposed"]
