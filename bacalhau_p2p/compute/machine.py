"""The compute component's state machine: every execution of this node, from bid to end.

Pure: events and the time go in, actions come out. `transitions` holds every transition. An event without a
row changes nothing and is counted in `ignored`.

`docs/states.md` describes the states in prose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.protocol import Random
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute import transitions
from bacalhau_p2p.compute.announcements import Announcements
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.commands import Commands
from bacalhau_p2p.compute.ledger import HOLDS_ROOM, WORKING, Ledger
from bacalhau_p2p.compute.presence import GONE_AFTER
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.compute.shares import DEFAULT_RULES, ShareRules
from bacalhau_p2p.compute.supervision import Supervision
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.state import ComputeState

S = ComputeState


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
        self._commands = Commands(self._ledger)
        self._supervision = Supervision(self._ledger)

    # --- the outside ------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: UnixSeconds) -> list[ev.Action]:
        """Take in one event, and return what to do, in order. If this raises, the event changed nothing."""
        with self._ledger.all_or_nothing():
            _HANDLERS[type(event)](self, event, now)
            self._announcements.use_room(now)
        return self._ledger.take_actions()

    def next_deadline(self) -> UnixSeconds | None:
        """When to call `handle(TimePassed(), now)` if nothing happens before."""
        mine, other = self._supervision.next_deadline(), self._announcements.next_deadline()
        return other if mine is None or (other is not None and other < mine) else mine

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
        return self._commands.forgotten(message)

    def awaited(self, author: PeerID, job_id: JobID) -> say.JobOutlined | None:
        """The outline of a large job whose spec this node has asked its requester for."""
        return self._announcements.awaited(author, job_id)

    def considers(self, author: PeerID, job_id: JobID) -> bool:
        """Whether this node inspects a job, waits with its bid, or has asked for its spec."""
        return self._announcements.considers(author, job_id)

    def take_faults(self) -> list[tuple[str, Exception]]:
        """What raised when its deadline had come, since the last call."""
        return self._ledger.take_faults()

    @property
    def ignored(self) -> Counter[str]:
        """Events that changed nothing, by kind and state: late, repeated, forged or nonsense."""
        return self._ledger.ignored

    @property
    def unknown(self) -> int:
        """How many events were about executions that this machine does not know."""
        return self._ledger.unknown

    # --- messages ---------------------------------------------------------------------------

    def _announced(self, event: ev.AnnouncementReceived, now: UnixSeconds) -> None:
        self._ledger.presence.heard(event.author, now)
        self._announcements.announced(event, now)

    def _outlined(self, event: ev.OutlineReceived, now: UnixSeconds) -> None:
        self._ledger.presence.heard(event.author, now)
        self._announcements.outlined(event, now)

    def _spec_received(self, event: ev.SpecReceived, now: UnixSeconds) -> None:
        self._ledger.presence.heard(event.author, now)
        self._announcements.spec_received(event, now)

    def _spec_refused(self, event: ev.SpecRefused, now: UnixSeconds) -> None:
        self._announcements.spec_refused(event, now)

    def _message_received(self, event: ev.MessageReceived, now: UnixSeconds) -> None:
        message, author = event.message, event.author
        self._ledger.presence.heard(author, now)
        match message:
            case say.JobClosed() | say.SpecDelivered(spec=b""):
                self._announcements.closed(author, message.job_id)
            case say.Reconcile():
                self._commands.reconcile(author, message, now)
            case (
                say.BidAccepted()
                | say.BidRejected()
                | say.ResultAccepted()
                | say.ResultRejected()
                | say.CancelExecution()
            ):
                if isinstance(message, say.BidRejected):
                    self._announcements.rejected(author, message.job_id)
                self._commands.take(author, message, now)
            case _:
                self._ledger.ignore(message, "at a compute node")

    # --- this node --------------------------------------------------------------------------

    def _resumed(self, event: ev.Resumed, now: UnixSeconds) -> None:
        """Continue an execution where an earlier process of this node left it."""
        execution = event.execution
        if execution.state is S.RUNNING:  # it may have ended in time while the node was down
            execution = execution.replace(expires=max(execution.expires, now + transitions.RUN_GRACE))
        self._ledger.remember(execution)
        if execution.state in HOLDS_ROOM and not self._ledger.capacity.reserve(
            execution.id, execution.requester_id, execution.reserves, gpus=execution.gpus
        ):
            transitions.move(self._ledger, execution, transitions.RoomLost(), now)
            return
        if not execution.state.terminal and execution.expires <= now:  # before anything is begun again
            transitions.move(self._ledger, execution, transitions.overdue(execution), now)
            return
        if execution.state in HOLDS_ROOM:
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

    def _preparation_told(self, event: ev.PreparationTold, now: UnixSeconds) -> None:
        execution = self._ledger.executions.get(event.execution_id)
        if execution is not None and execution.state is S.PREPARING:
            self._supervision.tell_preparation(execution, event, now)
        else:
            self._ledger.ignore(event, f"in {execution.state}" if execution else "for an unknown execution")

    def _step_ended(self, event: ev.StepEvent, now: UnixSeconds) -> None:
        execution = self._ledger.executions.get(event.execution_id)
        if execution is not None and transitions.expects(execution.state, event):
            transitions.move(self._ledger, execution, event, now)
        else:
            self._ledger.ignore(event, f"in {execution.state}" if execution else "for an unknown execution")

    def _requester_cut_off(self, event: ev.RequesterCutOff, now: UnixSeconds) -> None:
        """Keep nothing for it that it has not accepted."""
        self._announcements.forget(event.requester)
        for execution in list(self._ledger.executions.values()):
            if execution.requester_id == event.requester and transitions.expects(execution.state, event):
                transitions.move(self._ledger, execution, event, now)

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
        self._supervision.check(now)


_HANDLERS: dict[type[ev.Event], Callable[[ComputeMachine, Any, UnixSeconds], None]] = {
    ev.AnnouncementReceived: ComputeMachine._announced,
    ev.OutlineReceived: ComputeMachine._outlined,
    ev.SpecReceived: ComputeMachine._spec_received,
    ev.SpecRefused: ComputeMachine._spec_refused,
    ev.MessageReceived: ComputeMachine._message_received,
    ev.Resumed: ComputeMachine._resumed,
    ev.Recalled: ComputeMachine._recalled,
    ev.Inspected: ComputeMachine._inspected,
    ev.PreparationTold: ComputeMachine._preparation_told,
    ev.Prepared: ComputeMachine._step_ended,
    ev.RunFinished: ComputeMachine._step_ended,
    ev.RunVanished: ComputeMachine._step_ended,
    ev.Published: ComputeMachine._step_ended,
    ev.StepFailed: ComputeMachine._step_ended,
    ev.EngineStopped: ComputeMachine._step_ended,
    ev.RequesterCutOff: ComputeMachine._requester_cut_off,
    ev.StopBidding: ComputeMachine._stop_bidding,
    ev.HandBack: ComputeMachine._hand_back,
    ev.NotStored: ComputeMachine._not_stored,
    ev.TimePassed: ComputeMachine._time_passed,
}
