"""An execution from its bid to its end: `machine`, `commands`, `supervision`, `record`, `events`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.bidding import NOT_DRAWN, Assessment
from bacalhau_p2p.compute.commands import MAX_UNKNOWN_ANSWERS
from bacalhau_p2p.compute.ledger import MAX_ENDED
from bacalhau_p2p.compute.presence import GONE_AFTER
from bacalhau_p2p.compute.transitions import (
    ACCEPTED_LATE_FOR,
    HEARTBEAT_INTERVAL,
    KEEP_PROPOSED_FOR,
    PREPARE_TIMEOUT,
    REMEMBER_ENDED_FOR,
    RESERVED_FOR,
    RUN_GRACE,
)
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import ComputeState, ExecutionState
from tests.support.machines.compute_bench import FIRST, JOB, ComputeBench, message_about, small_job
from tests.support.machines.effort import instructions_of
from tests.support.machines.machine_bench import messages_in
from tests.support.results import result_cid

S = ComputeState
MALLORY = PeerID("mallory")
RESULT = PublishedResult(cid=result_cid("result"), location=SpecConfig(type="ipfs"))


def sent(actions: Iterable[ev.Action]) -> list[str]:
    return [message.kind for message in messages_in(actions)]


def has(actions: Iterable[ev.Action], kind: type) -> bool:
    return any(isinstance(action, kind) for action in actions)


@pytest.fixture
def bench():
    return ComputeBench()


@pytest.fixture
def running(bench):
    bench.announce()
    bench.receive(message_about(say.BidAccepted))
    bench.handle(ev.Prepared(FIRST))
    return bench


@pytest.fixture
def proposed(running):
    running.handle(ev.RunFinished(FIRST, "bafy", b"sealed"))
    return running


@pytest.fixture
def published(proposed):
    proposed.receive(message_about(say.ResultAccepted))
    proposed.handle(ev.Published(FIRST, RESULT))
    return proposed


@pytest.mark.parametrize("outlives", [False, True])
def test_a_bid_says_whether_the_run_goes_on_without_the_node(bench, outlives):
    (bid,) = messages_in(bench.announce(assessment=Assessment(outlives_node=outlives)))
    assert bid.outlives_node is outlives


# --- the journey ----------------------------------------------------------------------------


def test_an_execution_goes_from_bid_to_completed(bench):
    assert sent(bench.announce()) == ["bid"]
    assert has(bench.receive(message_about(say.BidAccepted)), ev.Prepare)
    assert has(bench.handle(ev.Prepared(FIRST)), ev.Run)
    assert sent(bench.handle(ev.RunFinished(FIRST, "bafy", b"sealed"))) == ["result_proposed"]
    assert has(bench.receive(message_about(say.ResultAccepted)), ev.Publish)
    actions = bench.handle(ev.Published(FIRST, RESULT))
    assert sent(actions) == ["result_published"]
    assert has(actions, ev.CleanUp)
    assert bench.state() is S.COMPLETED


def test_nothing_is_published_before_it_is_accepted(proposed):
    assert not has(proposed.wait(3600), ev.Publish)
    assert proposed.receive(message_about(say.BidAccepted)) == []
    assert proposed.state() is S.PROPOSED


def test_a_second_acceptance_does_not_run_twice(bench):
    bench.announce()
    assert has(bench.receive(message_about(say.BidAccepted)), ev.Prepare)
    assert bench.receive(message_about(say.BidAccepted)) == []


def test_a_rejected_result_is_cleaned_up(proposed):
    assert has(proposed.receive(message_about(say.ResultRejected, reason="differs")), ev.CleanUp)
    assert proposed.state() is S.REJECTED


JOURNEY = [
    lambda bench: bench.announce(),
    lambda bench: bench.receive(message_about(say.BidAccepted)),
    lambda bench: bench.handle(ev.Prepared(FIRST)),
    lambda bench: bench.handle(ev.RunFinished(FIRST, "bafy", b"sealed")),
    lambda bench: bench.receive(message_about(say.ResultAccepted)),
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
    actions = bench.receive(message_about(say.CancelExecution, reason="the job is Stopped"))
    assert has(actions, ev.Stop) is (state in UNDER_WAY)
    assert has(actions, ev.CleanUp)
    assert bench.state() is S.CANCELLED
    assert bench.machine.capacity.holders == frozenset()


@pytest.mark.parametrize("state", STATES)
def test_a_node_that_stops_hands_back_whatever_it_has(state):
    bench = in_state(state)
    actions = bench.handle(ev.HandBack())
    (failed,) = messages_in(actions)
    assert (failed.kind, failed.drained, failed.permanent) == ("execution_failed", True, False)
    assert has(actions, ev.Stop) is (state in UNDER_WAY)
    assert has(actions, ev.CleanUp)
    assert bench.state() is S.CANCELLED
    assert bench.machine.capacity.holders == frozenset()


@pytest.mark.parametrize("state", STATES)
def test_a_state_that_lasts_too_long_ends_the_execution(state):
    bench = in_state(state)
    if state is S.BID:  # its reservation ends first
        bench.wait(RESERVED_FOR)
    bench.now = bench.machine.executions[FIRST].expires
    actions = bench.handle(ev.TimePassed())
    assert has(actions, ev.Stop) is (state in UNDER_WAY)
    assert has(actions, ev.CleanUp)
    assert bench.state() is (S.FAILED if state in UNDER_WAY else S.EXPIRED)
    assert ("execution_failed" in sent(actions)) is (state in UNDER_WAY)


# --- capacity and bidding -------------------------------------------------------------------


def test_a_bid_reserves_room_and_a_full_node_says_it_is_busy(bench):
    bench.announce(job_id="j-1")
    bench.announce(job_id="j-2")
    (decline,) = messages_in(bench.announce(job_id="j-3"))
    assert (decline.kind, decline.reason, decline.busy) == ("bid_declined", "is busy", True)
    assert bench.machine.capacity.reserved.cpu == 1


def test_a_job_larger_than_the_node_is_declined_for_good(bench):
    (decline,) = messages_in(bench.announce(small_job(cpu="64")))
    assert (decline.reason, decline.busy) == ("is too small for the requested resources: CPU", False)


def test_room_is_released_when_a_bid_is_rejected_or_expires(bench):
    bench.announce(job_id="j-1")
    bench.announce(job_id="j-2")
    bench.receive(message_about(say.BidRejected))
    assert bench.machine.capacity.holders == {"e-2"}
    bench.wait(ACCEPTED_LATE_FOR + 1)
    assert bench.state("e-2") is S.EXPIRED
    assert bench.machine.capacity.reserved == Resources()


def test_room_is_released_when_the_run_ends(running):
    assert running.machine.capacity.holders == {FIRST}
    running.handle(ev.RunFinished(FIRST, "bafy", b"sealed"))
    assert running.machine.capacity.holders == frozenset()


def test_a_node_has_one_bid_on_a_job_at_a_time(bench):
    assert sent(bench.announce()) == ["bid"]
    assert bench.announce(round=2) == []
    bench.receive(message_about(say.BidRejected))
    assert sent(bench.announce(round=3)) == ["bid"]


def test_a_node_declines_silently_unless_answers_are_wanted(bench):
    assert bench.announce(small_job(cpu="64"), answers_wanted=False) == []


def test_a_node_that_is_not_drawn_does_nothing(bench):
    assert bench.announce(assessment=NOT_DRAWN) == []
    assert bench.machine.next_deadline() is None
    assert bench.machine.ignored == {}


def test_where_not_everybody_may_bid_a_node_bids_a_little_later():
    bench = ComputeBench(rng=0.5)
    assert bench.announce(chance=0.1) == []
    assert sent(bench.wait(1)) == ["bid"]


def test_a_closed_job_gets_no_late_bid():
    bench = ComputeBench(rng=0.5)
    bench.announce(chance=0.1)
    bench.receive(say.JobClosed(job_id=JOB))
    assert bench.wait(10) == []


def test_a_node_that_stops_bidding_finishes_its_executions(running):
    running.handle(ev.StopBidding())
    assert running.announce(job_id="j-2") == []
    assert sent(running.handle(ev.RunFinished(FIRST, "bafy", b"sealed"))) == ["result_proposed"]


# --- trouble --------------------------------------------------------------------------------


def test_a_failed_step_is_reported_with_its_reason(running):
    (failed,) = messages_in(running.handle(ev.StepFailed(FIRST, "exec: no such file", permanent=True)))
    assert (failed.reason, failed.permanent) == ("exec: no such file", True)
    assert running.state() is S.FAILED


def test_a_preparation_that_hangs_is_stopped(bench):
    bench.announce()
    bench.receive(message_about(say.BidAccepted))
    actions = bench.wait(PREPARE_TIMEOUT + 1)
    assert has(actions, ev.Stop)
    assert bench.machine.executions == {} or bench.state() is S.FAILED
    assert "execution_failed" in sent(actions)


def test_an_executor_that_does_not_end_a_run_is_stopped(running):
    timeout = running.machine.executions[FIRST].spec.execution_timeout
    assert not has(running.wait(timeout + RUN_GRACE - 1), ev.Stop)
    actions = running.wait(2)
    assert has(actions, ev.Stop)
    assert "execution_failed" in sent(actions)


def test_a_result_waits_a_day_for_its_requester(proposed):
    proposed.wait(KEEP_PROPOSED_FOR - 1)
    assert proposed.state() is S.PROPOSED
    assert has(proposed.wait(2), ev.CleanUp)
    assert proposed.state() is S.EXPIRED


def test_heartbeats_list_the_executions_under_way_and_end_with_them(running):
    (beat,) = messages_in(running.wait(HEARTBEAT_INTERVAL))
    assert [(line.execution_id, line.state) for line in beat.executions] == [(FIRST, S.RUNNING)]
    running.receive(message_about(say.CancelExecution))
    assert sent(running.wait(60)) == []


def test_how_much_is_fetched_is_told_at_once_while_the_inputs_are_prepared(bench):
    bench.announce()
    bench.receive(message_about(say.BidAccepted))
    fetched = ev.PreparationTold(FIRST, (say.InputProgress(done=1, total=2),))
    (action,) = bench.handle(fetched)
    (line,) = action.message.executions
    assert (line.execution_id, line.state, line.inputs) == (FIRST, S.PREPARING, fetched.inputs)
    compiling = ev.PreparationTold(FIRST, doing="compiling app.wasm (26 MB)")
    (action,) = bench.handle(compiling)
    (line,) = action.message.executions
    assert (line.message, line.inputs) == ("compiling app.wasm (26 MB)", ())
    bench.handle(ev.Prepared(FIRST))
    assert bench.handle(fetched) == bench.handle(compiling) == []


def test_a_requester_that_accepts_an_expired_bid_gets_the_reason(bench):
    bench.announce()
    bench.wait(ACCEPTED_LATE_FOR + 1)
    (failed,) = messages_in(bench.receive(message_about(say.BidAccepted)))
    assert failed.kind == "execution_failed"
    assert "the bid was not answered" in failed.reason


def test_a_requester_that_accepts_an_unknown_execution_is_told(bench):
    assert sent(bench.receive(message_about(say.ResultAccepted, "e-77"))) == ["execution_failed"]
    assert sent(bench.receive(message_about(say.CancelExecution, "e-77"))) == []


def test_only_the_requester_of_an_execution_can_change_it(running):
    assert running.receive(message_about(say.CancelExecution), author=MALLORY) == []
    assert running.receive(message_about(say.ResultAccepted), author=MALLORY) == []
    assert running.state() is S.RUNNING
    assert running.machine.ignored == {
        "CancelExecution from another requester": 1,
        "ResultAccepted from another requester": 1,
    }


def test_a_step_that_ends_too_late_changes_nothing(running):
    running.receive(message_about(say.CancelExecution))
    assert running.handle(ev.RunFinished(FIRST, "bafy", b"sealed")) == []
    assert running.state() is S.CANCELLED


def test_ended_executions_are_forgotten_after_a_while(proposed):
    proposed.receive(message_about(say.ResultRejected))
    proposed.wait(2 * GONE_AFTER)
    assert proposed.machine.executions == {}
    assert proposed.machine.next_deadline() is None


def test_a_run_that_ended_while_its_node_was_down_is_collected(running):
    execution = running.machine.executions[FIRST]
    again = ComputeBench()
    again.now = execution.expires + 100
    assert has(again.handle(ev.Resumed(execution)), ev.Reattach)
    assert not has(again.wait(RUN_GRACE - 1), ev.Stop)
    assert sent(again.handle(ev.RunFinished(FIRST, "bafy", b"sealed"))) == ["result_proposed"]


# --- records that cannot be stored ------------------------------------------------------------


@pytest.mark.parametrize("state", ["preparing", "running", "proposed", "publishing"])
def test_an_execution_whose_record_cannot_be_stored_fails_with_a_reason(bench, state):
    bench.announce()
    bench.receive(message_about(say.BidAccepted))
    if state != "preparing":
        bench.handle(ev.Prepared(FIRST))
    if state in ("proposed", "publishing"):
        bench.handle(ev.RunFinished(FIRST, "bafy", b"sealed"))
    if state == "publishing":
        bench.receive(message_about(say.ResultAccepted))
    actions = bench.handle(ev.NotStored(bench.machine.executions[FIRST], "it cannot be stored: x"))
    (failed,) = messages_in(actions)
    assert (failed.kind, failed.reason) == ("execution_failed", "the node failed: it cannot be stored: x")
    assert (bench.state(), bench.machine.capacity.holders) == (S.FAILED, frozenset())
    (stored,) = bench.handle(ev.NotStored(bench.machine.executions[FIRST], "again"))
    assert (stored.record.state, stored.record.message) == (S.FAILED, "the node failed: again")


# --- what strangers ask -----------------------------------------------------------------------


def test_unknown_executions_are_answered_a_few_at_a_time_and_nothing_is_kept(bench):
    views = tuple(
        say.ExecutionView(job_id=JOB, execution_id=f"x-{n}", state=ExecutionState.BID_ACCEPTED)
        for n in range(1000)
    )
    actions = bench.receive(say.Reconcile(executions=views), MALLORY)
    assert len(actions) == MAX_UNKNOWN_ANSWERS
    assert {action.durable for action in actions} == {False}


def test_an_ended_execution_is_remembered_without_its_spec_and_stored_with_it(bench):
    """Strangers choose how large a spec is, and how many they have rejected."""
    spec = small_job(task={"Env": {"TEXT": "x" * 10_000}})
    bench.announce(spec)
    bench.receive(message_about(say.BidAccepted))
    actions = bench.receive(message_about(say.CancelExecution))
    (stored,) = [action.record for action in actions if isinstance(action, ev.Store)]
    assert stored.spec == spec
    assert len(bench.machine.executions[FIRST].model_dump_json()) < 2000


# --- what is remembered ---------------------------------------------------------------------


def test_what_is_remembered_of_ended_executions_is_bounded(bench):
    for number in range(MAX_ENDED + 5):
        bench.announce(job_id=f"j-{number}")
        (execution_id,) = [e.id for e in bench.machine.executions.values() if not e.state.terminal]
        bench.receive(message_about(say.CancelExecution, execution_id))
    assert len(bench.machine.executions) == MAX_ENDED
    assert {"e-5", "e-6"} & bench.machine.executions.keys() == {"e-6"}


@pytest.mark.parametrize("seen", [ExecutionState.BID_ACCEPTED, ExecutionState.RESULT_PROPOSED])
def test_a_question_that_the_acceptance_of_a_result_overtook_does_not_take_the_result_back(published, seen):
    view = say.ExecutionView(job_id=JOB, execution_id=FIRST, state=seen)
    assert sent(published.receive(say.Reconcile(executions=(view,)))) == ["result_published"]


def test_a_requester_that_asks_late_is_told_of_the_result_that_the_store_still_has(published):
    (stored,) = [e for e in published.machine.executions.values() if e.state is S.COMPLETED]
    published.wait(REMEMBER_ENDED_FOR + 1)
    view = say.ExecutionView(job_id=JOB, execution_id=FIRST, state=ExecutionState.RESULT_ACCEPTED)
    question = say.Reconcile(executions=(view,))
    assert published.machine.forgotten(question) == [FIRST]
    published.handle(ev.Recalled(stored))
    assert published.machine.forgotten(question) == []
    assert sent(published.receive(question)) == ["result_published"]
    published.wait(REMEMBER_ENDED_FOR + 1)
    assert published.machine.executions == {}


@pytest.mark.parametrize("kind", [say.BidAccepted, say.ResultAccepted])
def test_a_repeat_of_what_led_to_a_result_does_not_report_it_as_failed(published, kind):
    assert sent(published.receive(message_about(kind))) == ["result_published"]


def test_no_more_executions_are_recalled_for_a_message_than_are_answered(bench):
    views = [
        say.ExecutionView(job_id=JOB, execution_id=f"e-{n}", state=ExecutionState.RESULT_ACCEPTED)
        for n in range(MAX_UNKNOWN_ANSWERS + 5)
    ]
    assert len(bench.machine.forgotten(say.Reconcile(executions=tuple(views)))) == MAX_UNKNOWN_ANSWERS
    assert bench.machine.forgotten(message_about(say.BidAccepted, "e-9")) == ["e-9"]
    assert bench.machine.forgotten(message_about(say.CancelExecution, "e-9")) == []


def test_an_execution_that_runs_is_not_replaced_by_one_that_is_recalled(running):
    (execution,) = running.machine.executions.values()
    running.handle(ev.Recalled(execution.replace(state=S.FAILED)))
    assert running.state() is execution.state


def effort_of_events(executions):
    """The instructions that each event takes on a node that prepares so many executions of one job."""
    bench, effort = ComputeBench(cpu=10_000), dict[str, int]()
    small = {"Resources": {"CPU": "0.5", "Memory": "1Kb"}}
    divided = small_job(Count=500, Deal={"Replicas": 1}, task=small)
    for first in range(0, executions, 16):
        bench.announce(divided, bids_each=16)
        for number in range(first, first + 16):
            bench.receive(message_about(say.BidAccepted, f"e-{number + 1}", partition=number))
    assert len(bench.machine.capacity.holders) == executions

    def measure(what, call):
        effort[what] = instructions_of(call)

    measure("announcement", lambda: bench.announce(small_job(task=small), "j-2"))
    measure("prepared", lambda: bench.handle(ev.Prepared(FIRST)))
    measure("run", lambda: bench.handle(ev.RunFinished(FIRST, result_cid("result"), b"sealed")))
    accepted = message_about(say.ResultAccepted)
    measure("accepted", lambda: bench.receive(accepted))
    measure("published", lambda: bench.handle(ev.Published(FIRST, RESULT)))
    measure("cancelled", lambda: bench.receive(message_about(say.CancelExecution, "e-2", reason="no")))
    return effort


def test_no_event_takes_longer_on_a_node_with_many_executions():
    few, many = effort_of_events(16), effort_of_events(320)
    slow = {what: (few[what], many[what]) for what in few if many[what] > 1.2 * few[what] + 100}
    assert slow == {}
