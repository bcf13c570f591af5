"""The compute component's state machine: every execution of this node, from bid to end.

Pure: events and the time go in, actions come out. `transitions` holds every transition. An event without a
row changes nothing and is counted in `ignored`. If a requester accepts an execution that has ended, it gets
the reason.

`docs/states.md` describes the states in prose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.ledger import RETRY_FAULTY_DEADLINE
from bacalhau_p2p.components.protocol import Random
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute import transitions
from bacalhau_p2p.compute.announcements import Announcements
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.ledger import WORKING, Ledger
from bacalhau_p2p.compute.presence import GONE_AFTER
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.compute.shares import DEFAULT_RULES, ShareRules
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.node import NodeLoad
from bacalhau_p2p.model.state import ComputeState, ExecutionState, UnknownState

S = ComputeState

_HOLDS_ROOM = frozenset({S.PREPARING, S.RUNNING})
"""Stored states in which an execution holds room."""
MAX_UNKNOWN_ANSWERS = 10
"""Unknown executions of one message that are answered. A requester asks about one at a time."""
UNKNOWN = "unknown on the node"
"""Why an execution fails that its node does not know, or no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the machine needs of the node around it; nothing in here reaches the world."""

    execution_ids: Iterator[ExecutionID]
    """New ids that no other node can guess."""
    rng: Random
    capacity: Capacity
    share_rules: ShareRules = DEFAULT_RULES
    requester_gone_after: float = GONE_AFTER
    """Seconds without a message from a requester after which its runs are stopped; 0: never."""


class ComputeMachine:
    """`handle` an event, then perform the actions in order; call again at `next_deadline()`."""

    def __init__(self, environment: Environment) -> None:
        self._ledger = Ledger(
            environment.capacity, environment.share_rules, gone_after=environment.requester_gone_after
        )
        self._announcements = Announcements(
            self._ledger, execution_ids=environment.execution_ids, rng=environment.rng
        )

    # --- the outside ------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: UnixSeconds) -> list[ev.Action]:
        """Take in one event, and return what to do, in order. If this raises, the event changed nothing."""
        with self._ledger.all_or_nothing():
            _HANDLERS[type(event)](self, event, now)
            self._announcements.use_room(now)
        return self._ledger.take_actions()

    def next_deadline(self) -> UnixSeconds | None:
        """When to call `handle(TimePassed(), now)` if nothing happens before."""
        due = self._ledger.expiries.next()
        presence, announcements = self._ledger.presence, self._announcements
        for other in (self._ledger.heartbeat_due, presence.next_check(), announcements.next_deadline()):
            if other is not None and (due is None or other < due):
                due = other
        return due

    @property
    def executions(self) -> dict[ExecutionID, ComputeExecution]:
        """The executions in memory, for tests and invariants; not to be changed."""
        return self._ledger.executions

    @property
    def capacity(self) -> Capacity:
        """The capacity of this node, and how much of it each execution holds."""
        return self._ledger.capacity

    @property
    def active(self) -> int:
        """Executions that are prepared, run, proposed or published."""
        return len(self._ledger.working)

    def state_of(self, event: Any) -> str:
        """The state of the execution that an event names, for the log."""
        concerned = getattr(event, "message", event)
        execution = self._ledger.executions.get(getattr(concerned, "execution_id", ExecutionID("")))
        return str(execution.state) if execution is not None else ""

    def forgotten(self, message: say.Message) -> list[ExecutionID]:
        """Executions that a message asks about and that are not in memory. Of them the driver hands over, as
        `Recalled`, those that the store has and that are the author's."""
        match message:
            case say.Reconcile(executions=views):
                named = [view.execution_id for view in views]
            case say.BidAccepted(execution_id=one) | say.ResultAccepted(execution_id=one):
                named = [one]
            case _:
                return []
        missing = (each for each in named if each not in self._ledger.executions)
        return list(islice(missing, MAX_UNKNOWN_ANSWERS))

    def take_faults(self) -> list[tuple[str, Exception]]:
        """What raised when its deadline had come, since the last call."""
        return self._ledger.take_faults()

    @property
    def ignored(self) -> Counter[str]:
        """Events that changed nothing, by kind and state: late, repeated, forged or nonsense."""
        return self._ledger.ignored

    # --- messages ---------------------------------------------------------------------------

    def _announced(self, event: ev.AnnouncementReceived, now: UnixSeconds) -> None:
        self._ledger.presence.heard(event.author, now)
        self._announcements.announced(event, now)

    def _message_received(self, event: ev.MessageReceived, now: UnixSeconds) -> None:
        message, author = event.message, event.author
        self._ledger.presence.heard(author, now)
        match message:
            case say.JobClosed():
                self._announcements.closed(author, message.job_id)
            case say.Reconcile():
                answers = MAX_UNKNOWN_ANSWERS
                for view in message.executions:
                    if self._knows(author, view.execution_id):
                        self._reconcile(author, view, now)
                    elif answers:
                        answers -= 1
                        self._send_unknown(author, view.job_id, view.execution_id, now)
            case (
                say.BidAccepted()
                | say.BidRejected()
                | say.ResultAccepted()
                | say.ResultRejected()
                | say.CancelExecution()
            ):
                self._commanded(author, message, now)
            case _:
                self._ledger.ignore(message, "at a compute node")

    def _commanded(self, author: PeerID, message: Any, now: UnixSeconds) -> None:
        """Take in a message from a requester about one execution."""
        execution = self._ledger.executions.get(message.execution_id)
        if execution is not None and execution.requester_id != author:
            self._ledger.ignore(message, "from another requester")
            return
        if execution is not None and transitions.expects(execution.state, message):
            if isinstance(message, say.BidAccepted):
                self._accepted(execution, message, now)
            else:
                transitions.move(self._ledger, execution, message, now)
            return
        self._ledger.ignore(message, f"in {execution.state}" if execution else "for an unknown execution")
        if not isinstance(message, say.BidAccepted | say.ResultAccepted):
            return
        if execution is None:
            self._send_unknown(author, message.job_id, message.execution_id, now)
        elif execution.state is S.COMPLETED:  # a repeat: its requester is about to hear of the result
            transitions.send_result_published(self._ledger, execution, message, now)
        elif execution.state.terminal:
            self._send_ended(author, execution, now)

    def _reconcile(self, author: PeerID, view: say.ExecutionView, now: UnixSeconds) -> None:
        """Move an execution on to the state that its requester sees, or repeat what the requester missed."""
        execution = self._ledger.executions[view.execution_id]
        match (view.state, execution.state):
            case (UnknownState(), _):
                self._ledger.ignore(view, "with a state of a later version")
            case (ExecutionState.BID_ACCEPTED, S.BID):
                accepted = say.BidAccepted(job_id=view.job_id, execution_id=execution.id)
                self._accepted(execution, accepted, now)
            case (ExecutionState.RESULT_ACCEPTED, S.PROPOSED):
                verified = say.ResultAccepted(job_id=view.job_id, execution_id=execution.id)
                transitions.move(self._ledger, execution, verified, now)
            case (ExecutionState.BID_ACCEPTED, S.PROPOSED):
                transitions.send_result_proposed(self._ledger, execution, view, now)
            case (ExecutionState.RESULT_ACCEPTED, S.COMPLETED):
                transitions.send_result_published(self._ledger, execution, view, now)
            case (_, state) if state.terminal:
                self._send_ended(author, execution, now)

    def _accepted(self, execution: ComputeExecution, message: say.BidAccepted, now: UnixSeconds) -> None:
        """Begin, if there is room: that of a bid which is accepted late was released."""
        if self._has_room_for(execution, now):
            transitions.move(self._ledger, execution, message, now)
        else:
            transitions.move(self._ledger, execution, transitions.RoomLost(), now)

    def _has_room_for(self, execution: ComputeExecution, now: UnixSeconds) -> bool:
        requester, amount, capacity = execution.requester_id, execution.reserves, self._ledger.capacity
        if execution.id in capacity.holders:
            return True
        refusal = self._ledger.shares.refusal(requester, amount, now)
        return refusal is None and capacity.reserve(execution.id, requester, amount)

    def _knows(self, author: PeerID, execution_id: ExecutionID) -> bool:
        execution = self._ledger.executions.get(execution_id)
        return execution is not None and execution.requester_id == author

    def _send_unknown(self, to: PeerID, job_id: JobID, execution_id: ExecutionID, now: UnixSeconds) -> None:
        """Tell a peer that it has no such execution here. Nothing is kept for it: anybody may ask."""
        failed = say.ExecutionFailed(job_id=job_id, execution_id=execution_id, reason=UNKNOWN)
        give_up_at = now + transitions.REPEAT_UNKNOWN_FOR
        self._ledger.actions.append(ev.Send(to, failed, give_up_at, durable=False))

    def _send_ended(self, to: PeerID, execution: ComputeExecution, now: UnixSeconds) -> None:
        """Tell a requester that an execution has ended. A bid that was accepted too late is handed back:
        nothing is wrong with the job."""
        failed = say.ExecutionFailed(
            job_id=execution.job_id,
            execution_id=execution.id,
            reason=_ended(execution)[: say.MAX_REASON],
            drained=execution.state is S.EXPIRED and execution.result_cid is None,
        )
        self._ledger.actions.append(ev.Send(to, failed, now + transitions.REPEAT_FAILURE_FOR))

    # --- this node --------------------------------------------------------------------------

    def _resumed(self, event: ev.Resumed, now: UnixSeconds) -> None:
        """Continue an execution where an earlier process of this node left it."""
        execution = event.execution
        if execution.state is S.RUNNING:  # it may have ended in time while the node was down
            execution = execution.replace(expires=max(execution.expires, now + transitions.RUN_GRACE))
        self._ledger.remember(execution)
        if execution.state in _HOLDS_ROOM and not self._ledger.capacity.reserve(
            execution.id, execution.requester_id, execution.reserves
        ):
            transitions.move(self._ledger, execution, transitions.RoomLost(), now)
            return
        if not execution.state.terminal and execution.expires <= now:  # before anything is begun again
            transitions.move(self._ledger, execution, transitions.overdue(execution), now)
            return
        if execution.state in _HOLDS_ROOM:
            self._ledger.presence.watch(execution.requester_id, now)
        match execution.state:
            case S.PREPARING:
                self._ledger.actions.append(ev.Prepare(execution))
            case S.RUNNING:
                self._ledger.actions.append(ev.Reattach(execution))
            case S.PUBLISHING:
                self._ledger.actions.append(ev.Publish(execution))
        if execution.state in WORKING and self._ledger.heartbeat_due is None:
            self._ledger.heartbeat_due = now

    def _recalled(self, event: ev.Recalled, now: UnixSeconds) -> None:
        """Take an ended execution back into memory, for the question that follows."""
        if event.execution.id not in self._ledger.executions:
            recalled = event.execution.replace(expires=now + transitions.REMEMBER_ENDED_FOR)
            self._ledger.remember(recalled)

    def _inspected(self, event: ev.Inspected, now: UnixSeconds) -> None:
        self._announcements.inspected(event, now)

    def _step_ended(self, event: ev.StepEvent, now: UnixSeconds) -> None:
        execution = self._ledger.executions.get(event.execution_id)
        if execution is not None and transitions.expects(execution.state, event):
            transitions.move(self._ledger, execution, event, now)
        else:
            self._ledger.ignore(event, f"in {execution.state}" if execution else "for an unknown execution")

    def _stop_bidding(self, event: ev.StopBidding, now: UnixSeconds) -> None:
        self._announcements.stop()

    def _hand_back(self, event: ev.HandBack, now: UnixSeconds) -> None:
        self._announcements.stop()
        for execution in list(self._ledger.executions.values()):
            if not execution.state.terminal:
                transitions.move(self._ledger, execution, transitions.NodeStopped(), now)

    def _not_stored(self, event: ev.NotStored, now: UnixSeconds) -> None:
        """Fail the execution whose record cannot be stored; if it has ended, store that at least."""
        execution = self._ledger.executions.get(getattr(event.record, "id", ExecutionID("")))
        failed = transitions.RecordRefused(f"the node failed: {event.reason}")
        if execution is not None and transitions.expects(execution.state, failed):
            transitions.move(self._ledger, execution, failed, now)
        elif execution is not None and execution.state.terminal:  # or it would be resumed after a restart
            ended = execution.replace(message=failed.reason[: say.MAX_REASON], published=None)
            self._ledger.actions.append(ev.Store(ended))
        else:
            self._ledger.ignore(event, f"in {execution.state}" if execution else "for an unknown execution")

    # --- time -------------------------------------------------------------------------------

    def _time_passed(self, event: ev.TimePassed, now: UnixSeconds) -> None:
        self._announcements.check(now)
        for requester in self._ledger.presence.gone(now):
            with self._ledger.isolated(f"runs for {requester}"):
                self._stop_runs_for(requester, now)
        while (execution_id := self._ledger.expiries.pop(now)) is not None:
            with self._ledger.isolated(f"execution {execution_id}"):
                self._expire(execution_id, now)
            if execution_id in self._ledger.executions and execution_id not in self._ledger.expiries:
                self._ledger.expiries.set(execution_id, now + RETRY_FAULTY_DEADLINE)
        if self._ledger.heartbeat_due is not None and self._ledger.heartbeat_due <= now:
            self._ledger.heartbeat_due = now + transitions.HEARTBEAT_INTERVAL
            with self._ledger.isolated("heartbeats"):
                self._send_heartbeats(now)

    def _stop_runs_for(self, requester: PeerID, now: UnixSeconds) -> None:
        """Nobody waits for what is prepared or run. Results that are proposed are kept."""
        silence = self._ledger.presence.gone_after
        gone = transitions.RequesterGone(f"its requester was not heard of for {silence:g} s")
        runs = [
            execution
            for execution in self._ledger.executions.values()
            if execution.requester_id == requester and execution.state in _HOLDS_ROOM
        ]
        for execution in runs:
            transitions.move(self._ledger, execution, gone, now)
        if runs:
            ids = tuple(execution.id for execution in runs)
            self._ledger.actions.append(ev.ReportGone(requester, silence, ids))

    def _expire(self, execution_id: ExecutionID, now: UnixSeconds) -> None:
        execution = self._ledger.executions[execution_id]
        if execution.state.terminal:
            self._ledger.forget(execution_id)
        else:
            self._overdue(execution, now)

    def _overdue(self, execution: ComputeExecution, now: UnixSeconds) -> None:
        lapses = execution.state is S.BID and execution.id in self._ledger.capacity.holders
        event = transitions.ReservationEnded() if lapses else transitions.overdue(execution)
        transitions.move(self._ledger, execution, event, now)

    def _send_heartbeats(self, now: UnixSeconds) -> None:
        """Send each requester one message with all its executions on this node."""
        lines: dict[PeerID, list[say.ExecutionProgress]] = {}
        for execution in self._ledger.executions.values():
            if execution.state in WORKING:
                line = say.ExecutionProgress(execution_id=execution.id, state=execution.state)
                lines.setdefault(execution.requester_id, []).append(line)
        load = NodeLoad(available_capacity=self.capacity.available, running_executions=self.active)
        for requester, progress in lines.items():
            heartbeat = say.Heartbeat(executions=tuple(progress), load=load)
            self._ledger.actions.append(ev.Send(requester, heartbeat, now))
        self._ledger.heartbeat_due = now + transitions.HEARTBEAT_INTERVAL if lines else None


def _ended(execution: ComputeExecution) -> str:
    return f"already {execution.state} on the node: {execution.message}"


_HANDLERS: dict[type[ev.Event], Callable[[ComputeMachine, Any, UnixSeconds], None]] = {
    ev.AnnouncementReceived: ComputeMachine._announced,
    ev.MessageReceived: ComputeMachine._message_received,
    ev.Resumed: ComputeMachine._resumed,
    ev.Recalled: ComputeMachine._recalled,
    ev.Inspected: ComputeMachine._inspected,
    ev.Prepared: ComputeMachine._step_ended,
    ev.RunFinished: ComputeMachine._step_ended,
    ev.RunVanished: ComputeMachine._step_ended,
    ev.Published: ComputeMachine._step_ended,
    ev.StepFailed: ComputeMachine._step_ended,
    ev.StopBidding: ComputeMachine._stop_bidding,
    ev.HandBack: ComputeMachine._hand_back,
    ev.NotStored: ComputeMachine._not_stored,
    ev.TimePassed: ComputeMachine._time_passed,
}
