"""The plan of a tick: what is committed, how durably, and what happens in which order."""

from __future__ import annotations

import itertools

import pytest

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import OutboxMessage, ProcessedMessage
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import BidAccepted, Heartbeat, JobClosed
from bacalhau_p2p.components.commit_plan import (
    HISTORY_DELAY,
    Acknowledge,
    Commit,
    CommitPlanner,
    Confirm,
    Dispatch,
    Handled,
    Perform,
    QueuedEvent,
)
from bacalhau_p2p.components.protocol import COMMIT_DELAY, Append, Broadcast, Send, Store
from bacalhau_p2p.compute.events import LearnAddresses
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState

ALICE, BOB = PeerID("alice"), PeerID("bob")
NOW = 100.0
SPEC = job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}}]})
ACCEPTED = BidAccepted(job_id="j", execution_id="e")
SEND = Send(BOB, ACCEPTED, give_up_at=200.0)
STEP = "begin a step"
"""An action that rests on records, which is the default."""


def compose(to, message, give_up_at):
    return OutboxMessage(to, Envelope(id=MessageID(b"m" * 16), message=message, to=to), give_up_at)


SENT = compose(BOB, ACCEPTED, 200.0)


def job(state=JobState.RUNNING, job_id="j"):
    times = {"created": 1.0, "modified": 1.0}
    return Job(id=JobID(job_id), spec=SPEC, state=state, requester_id=ALICE, **times)


def execution(job_id="j", state=ExecutionState.BID_ACCEPTED):
    return Execution(
        id=ExecutionID("e"), job_id=JobID(job_id), node_id=BOB, state=state, created=1.0, modified=1.0
    )


def message(number=1):
    """A message that arrived and must be acknowledged."""
    return QueuedEvent("received", Arrival(BOB, ACCEPTED, MessageID(bytes([number]) * 16)))


def handled(*actions, queued=None):
    return Handled(queued or QueuedEvent("happened"), actions)


@pytest.fixture
def planner():
    return CommitPlanner(compose)


def test_a_message_is_sent_after_a_power_safe_commit_that_holds_it_with_its_cause(planner):
    assert planner.plan([handled(Store(job()), SEND)], NOW) == [
        Commit(records=(job(),), outbox=(SENT,)),
        Dispatch(SENT),
    ]


def test_a_message_that_changed_something_is_acknowledged_after_the_commit_of_the_change(planner):
    came = message()
    assert planner.plan([handled(Store(job()), SEND, queued=came)], NOW) == [
        Commit(
            records=(job(),),
            outbox=(SENT,),
            processed=(ProcessedMessage(BOB, came.arrival.id, NOW),),
        ),
        Acknowledge(came.arrival),
        Dispatch(SENT),
    ]


def test_whoever_waits_for_an_event_is_told_after_the_commit_and_before_anything_is_sent(planner):
    waits = QueuedEvent("asked", confirm=lambda: None, note="token")
    steps = planner.plan([handled(Store(job()), Broadcast(JobClosed(job_id="j")), queued=waits)], NOW)
    assert steps == [
        Commit(records=(job(),), notes=("token",)),
        Confirm(waits),
        Perform(Broadcast(JobClosed(job_id="j"))),
    ]


def test_an_event_that_changed_nothing_is_confirmed_at_once(planner):
    waits = QueuedEvent("asked", confirm=lambda: None)
    assert planner.plan([handled(queued=waits)], NOW) == [Commit(), Confirm(waits)]


def test_the_end_of_a_job_is_committed_at_once(planner):
    assert planner.plan([handled(Store(job(JobState.COMPLETED)))], NOW) == [
        Commit(records=(job(JobState.COMPLETED),))
    ]


def test_a_step_rests_on_records_that_a_crash_does_not_undo_and_its_message_waits(planner):
    came = message()
    assert planner.plan([handled(Store(job()), STEP, queued=came)], NOW) == [
        Commit(records=(job(),), power_safe=False),
        Perform(STEP),
    ]
    assert planner.plan([], NOW + COMMIT_DELAY) == [
        Commit(processed=(ProcessedMessage(BOB, came.arrival.id, NOW + COMMIT_DELAY),)),
        Acknowledge(came.arrival),
    ]


def test_a_step_that_can_be_repeated_waits_for_no_commit(planner):
    repeatable = LearnAddresses(BOB, ())
    assert planner.plan([handled(Store(job()), repeatable)], NOW) == [Perform(repeatable)]


def test_changes_on_which_nothing_depends_share_a_later_commit(planner):
    first, second = message(1), message(2)
    assert planner.plan([handled(Store(job()), queued=first)], NOW) == []
    assert planner.due == NOW + COMMIT_DELAY
    assert planner.plan([handled(Store(execution()), queued=second)], NOW + 0.01) == []
    steps = planner.plan([], NOW + COMMIT_DELAY)
    assert steps == [
        Commit(
            records=(job(), execution()),
            processed=tuple(ProcessedMessage(BOB, m.arrival.id, NOW + COMMIT_DELAY) for m in (first, second)),
        ),
        Acknowledge(first.arrival),
        Acknowledge(second.arrival),
    ]
    assert planner.due is None


def test_changes_that_wait_are_part_of_the_next_commit(planner):
    planner.plan([handled(Store(job()))], NOW)
    commit, *_ = planner.plan([handled(SEND)], NOW + 0.001)
    assert commit == Commit(records=(job(),), outbox=(SENT,))
    assert planner.due is None


def test_only_the_last_version_of_a_record_is_committed(planner):
    versions = [execution(state=state) for state in (ExecutionState.BID_ACCEPTED, ExecutionState.FAILED)]
    commit, *_ = planner.plan([handled(*map(Store, versions), SEND)], NOW)
    assert commit.records == (versions[-1],)


def test_executions_of_two_jobs_with_one_id_are_two_records(planner):
    """Bidders choose the ids of executions."""
    records = (execution("j"), execution("k"), job(job_id="e"))
    commit, *_ = planner.plan([handled(*map(Store, records), SEND)], NOW)
    assert commit.records == records


def test_a_message_that_is_not_kept_needs_no_commit(planner):
    fleeting = [Send(BOB, Heartbeat(executions=()), 200.0), Send(BOB, ACCEPTED, 200.0, durable=False)]
    assert planner.plan([handled(*fleeting)], NOW) == [Perform(action) for action in fleeting]


def test_a_message_that_changes_nothing_durable_leaves_no_trace(planner):
    answer = Send(BOB, ACCEPTED, 200.0, durable=False)
    for actions in ([], [answer], [LearnAddresses(BOB, ()), STEP]):
        came = message()
        expected = [Acknowledge(came.arrival), *map(Perform, actions)]
        assert planner.plan([handled(*actions, queued=came)], NOW) == expected
    assert planner.due is None
    assert planner.flush(NOW) == []


def test_a_message_that_changed_nothing_is_acknowledged_after_the_commit_on_which_that_may_rest(planner):
    first, second = message(1), message(2)
    assert planner.plan([handled(Store(job()), queued=first)], NOW) == []
    assert planner.plan([handled(queued=second)], NOW + 0.01) == []
    assert planner.plan([], NOW + COMMIT_DELAY) == [
        Commit(records=(job(),), processed=(ProcessedMessage(BOB, first.arrival.id, NOW + COMMIT_DELAY),)),
        Acknowledge(first.arrival),
        Acknowledge(second.arrival),
    ]


def test_an_event_that_came_by_no_acknowledged_message_leaves_no_trace(planner):
    heartbeat = QueuedEvent("received", Arrival(BOB, Heartbeat(executions=()), None))
    assert planner.plan([handled(queued=heartbeat)], NOW) == []
    assert planner.due is None


def test_effects_keep_the_order_of_the_machine(planner):
    actions = ["first", Broadcast(JobClosed(job_id="j")), "last"]
    steps = planner.plan([handled(*actions[:2]), handled(actions[2])], NOW)
    assert [step.action for step in steps] == actions


def test_flushing_commits_what_waits(planner):
    came = message()
    planner.plan([handled(Store(job()), queued=came)], NOW)
    assert planner.flush(NOW) == [
        Commit(records=(job(),), processed=(ProcessedMessage(BOB, came.arrival.id, NOW),)),
        Acknowledge(came.arrival),
    ]
    assert planner.flush(NOW) == []


def test_what_was_discarded_is_never_committed(planner):
    planner.plan([handled(Store(job()), queued=message())], NOW)
    planner.discard()
    assert planner.flush(NOW) == []
    assert planner.due is None


@pytest.mark.parametrize("cause", list(itertools.permutations([Store(job()), SEND, STEP])))
def test_nothing_happens_before_the_commit_whatever_the_order_of_actions(planner, cause):
    commit, *rest = planner.plan([handled(*cause)], NOW)
    assert isinstance(commit, Commit)
    assert rest == [Dispatch(SENT), Perform(STEP)]


# --- histories ------------------------------------------------------------------------------


def event(number):
    return HistoryEvent(JobID("j"), number, NOW, EventKind.BID, "bids")


def test_events_of_a_history_go_along_with_the_commit_of_something_else(planner):
    planner.plan([handled(Append(event(1)))], NOW)
    assert planner.plan([handled(Append(event(2)), Store(job()), SEND)], NOW + 0.5) == [
        Commit(records=(job(),), history=(event(1), event(2)), outbox=(SENT,)),
        Dispatch(SENT),
    ]
    assert planner.due is None


def test_events_go_along_with_the_records_that_a_step_rests_on(planner):
    steps = planner.plan([handled(Store(job()), Append(event(1)), STEP)], NOW)
    assert steps[0] == Commit(records=(job(),), history=(event(1),), power_safe=False)
    assert planner.plan([], NOW + HISTORY_DELAY) == []


def test_events_alone_are_committed_after_a_while(planner):
    closed = Broadcast(JobClosed(job_id="j"))
    assert planner.plan([handled(Append(event(1)), closed)], NOW) == [Perform(closed)]
    assert planner.due == NOW + HISTORY_DELAY
    assert planner.plan([handled(Append(event(2)))], NOW + 0.5) == []
    assert planner.plan([], NOW + HISTORY_DELAY) == [Commit(history=(event(1), event(2)))]
    assert planner.due is None


def test_a_message_that_only_adds_to_a_history_is_acknowledged_at_once(planner):
    came = message()
    assert planner.plan([handled(Append(event(1)), queued=came)], NOW) == [Acknowledge(came.arrival)]


def test_a_change_is_due_sooner_than_events_that_came_before_it(planner):
    planner.plan([handled(Append(event(1)))], NOW)
    planner.plan([handled(Store(job()))], NOW + 0.1)
    assert planner.due == NOW + 0.1 + COMMIT_DELAY
    planner.discard()
    assert planner.due is None
