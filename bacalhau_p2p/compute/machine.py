"""The compute component's state machine: every execution of this node, from bid to end.

Pure: events and the time go in, actions come out. `TRANSITIONS` holds every transition; a message
for which it has no row changes nothing. A requester that takes up an execution which is over here
is told so, and why.

`docs/states.md` describes the states in prose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.announcements import Announcements
from bacalhau_p2p.compute.bidding import BidStrategy, Findings
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.state import ComputeState, ExecutionState

S = ComputeState

RESERVED_FOR = 30.0
"""Seconds for which room is kept for a bid."""
HEARTBEAT_EVERY = 5.0
"""Seconds."""
PREPARE_WITHIN = 15 * 60.0
"""Seconds to fetch inputs and image."""
RUN_GRACE = 30.0
"""Seconds beyond the execution time-out after which an executor that does not end a run is stopped."""
KEEP_PROPOSED = 24 * 3600.0
"""Seconds for which a result is kept for a requester that does not answer."""
PUBLISH_WITHIN = 15 * 60.0
REMEMBER_ENDED = 120.0
"""Seconds for which an ended execution stays in memory, to answer late messages by its reason."""
REPEAT_FAILURE_FOR = 3600.0
MAX_ACTIVE = 10_000
"""Executions, bids among them, that a node holds at one time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the machine needs of the node around it; all of it pure."""

    peer_id: PeerID
    new_execution_id: Callable[[], ExecutionID]
    rng: Callable[[], float]


class ComputeMachine:
    """`handle` an event, then perform the actions in order; call again at `next_deadline()`."""

    def __init__(self, environment: Environment, strategy: BidStrategy, capacity: Capacity) -> None:
        self._strategy = strategy
        self._capacity = capacity
        self._executions: dict[ExecutionID, ComputeExecution] = {}
        self._working: set[ExecutionID] = set()
        self._by_job: dict[tuple[PeerID, JobID], ExecutionID] = {}
        self._heap: list[tuple[UnixSeconds, ExecutionID]] = []
        self._next_heartbeat: UnixSeconds | None = None
        self._bidding = True
        self._out: list[ev.Action] = []
        self._announcements = Announcements(
            strategy,
            capacity,
            new_execution_id=environment.new_execution_id,
            rng=environment.rng,
            say=lambda action: self._out.append(action),
            bid=self._bid,
        )
        self.ignored = 0
        """Messages that changed nothing: late, repeated, forged or nonsense."""

    # --- the outside ------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: UnixSeconds) -> list[ev.Action]:
        """Take in one event; what is to be done comes back, in order."""
        match event:
            case ev.MessageReceived(author, message):
                self._message(author, message, now)
            case ev.TimePassed():
                self._time_passed(now)
            case ev.Resumed(execution):
                self._resumed(execution, now)
            case ev.Examined():
                if not self._announcements.examined(event, now):
                    self.ignored += 1
            case ev.StopBidding():
                self._stop_bidding()
            case ev.HandBack():
                self._hand_back(now)
            case _:
                self._step_ended(event, now)
        out, self._out = self._out, []
        return out

    def next_deadline(self) -> UnixSeconds | None:
        """When to call `handle(TimePassed(), now)` if nothing happens before."""
        clocks = self._announcements.deadlines()
        if self._next_heartbeat is not None:
            clocks.append(self._next_heartbeat)
        while self._heap:
            due, execution_id = self._heap[0]
            execution = self._executions.get(execution_id)
            if execution is not None and execution.expires == due:
                clocks.append(due)
                break
            heappop(self._heap)
        return min(clocks, default=None)

    @property
    def executions(self) -> dict[ExecutionID, ComputeExecution]:
        """What the machine has in memory, for tests and invariants; not to be changed."""
        return self._executions

    @property
    def capacity(self) -> Capacity:
        return self._capacity

    @property
    def active(self) -> int:
        """Executions that are prepared, run, proposed or published."""
        return len(self._working)

    # --- events -----------------------------------------------------------------------------

    def _message(self, author: PeerID, message: say.Message, now: UnixSeconds) -> None:
        if isinstance(message, say.JobAnnounced):
            self._announced(author, message, now)
        elif isinstance(message, say.JobClosed):
            self._announcements.closed(author, message.job_id)
        elif isinstance(message, say.Reconcile):
            for view in message.executions:
                self._reconcile(author, view, now)
        elif type(message) in _FROM_REQUESTER:
            self._from_requester(author, message, now)
        else:
            self.ignored += 1

    def _from_requester(self, author: PeerID, message: Any, now: UnixSeconds) -> None:
        execution = self._executions.get(message.execution_id)
        if execution is not None and execution.requester_id != author:
            self.ignored += 1
            return
        row = TRANSITIONS.get((execution.state, type(message))) if execution else None
        if execution is not None and row is not None:
            row(self, execution, message, now)
            return
        self.ignored += 1
        wants_more = isinstance(message, say.BidAccepted | say.ResultAccepted)
        if wants_more and (execution is None or execution.state.terminal):
            reason = "this node knows nothing of it any more"
            if execution is not None:
                reason = f"it is {execution.state} on its node: {execution.message}"
            self._say_failed(author, message.job_id, message.execution_id, reason, False, now)

    def _reconcile(self, author: PeerID, view: say.ExecutionView, now: UnixSeconds) -> None:
        """Bring an execution to where its requester thinks it is, or say again what the requester missed."""
        execution = self._executions.get(view.execution_id)
        if execution is None or execution.requester_id != author:
            reason = "this node knows nothing of it"
            self._say_failed(author, view.job_id, view.execution_id, reason, False, now)
            return
        match (view.state, execution.state):
            case (ExecutionState.BID_ACCEPTED, S.BID):
                accepted = say.BidAccepted(job_id=view.job_id, execution_id=execution.id)
                self._from_requester(author, accepted, now)
            case (ExecutionState.BID_ACCEPTED, S.PROPOSED):
                self._propose(execution, now)
            case (ExecutionState.RESULT_ACCEPTED, S.PROPOSED):
                verified = say.ResultAccepted(job_id=view.job_id, execution_id=execution.id)
                self._from_requester(author, verified, now)
            case (ExecutionState.RESULT_ACCEPTED, S.COMPLETED):
                self._say_published(execution, now)
            case (_, state) if state.terminal:
                self._say_failed(
                    author,
                    view.job_id,
                    execution.id,
                    f"it is {state} on its node: {execution.message}",
                    False,
                    now,
                )

    def _resumed(self, execution: ComputeExecution, now: UnixSeconds) -> None:
        """Go on where the store says that an earlier life of the node stood."""
        if execution.state is S.RUNNING:  # it may have ended in time, while nobody was there to see it
            execution = execution.replace(expires=max(execution.expires, now + RUN_GRACE))
        self._remember(execution)
        heappush(self._heap, (execution.expires, execution.id))
        if execution.state.terminal:
            return
        self._by_job[(execution.requester_id, execution.job_id)] = execution.id
        if execution.state in _HOLDS_ROOM and not self._capacity.reserve(execution.id, execution.reserves):
            self._fail(
                execution, "there is no room for it on its node since it was started again", False, now
            )
            return
        match execution.state:
            case S.PREPARING:
                self._out.append(ev.Prepare(execution))
            case S.RUNNING:
                self._out.append(ev.Reattach(execution))
            case S.PUBLISHING:
                self._out.append(ev.Publish(execution))
        if execution.state in _WORKING and self._next_heartbeat is None:
            self._next_heartbeat = now

    def _stop_bidding(self) -> None:
        self._bidding = False
        self._announcements.stop()

    def _hand_back(self, now: UnixSeconds) -> None:
        self._stop_bidding()
        for execution in list(self._executions.values()):
            if execution.state.terminal:
                continue
            self._out.append(ev.Stop(execution.id))
            reason = "its node was stopped"
            failed = say.ExecutionFailed(
                job_id=execution.job_id, execution_id=execution.id, reason=reason, drained=True
            )
            self._out.append(ev.Send(execution.requester_id, failed, now + REPEAT_FAILURE_FOR))
            self._end(execution, S.CANCELLED, reason, now)

    def _step_ended(self, event: Any, now: UnixSeconds) -> None:
        execution = self._executions.get(event.execution_id)
        row = TRANSITIONS.get((execution.state, type(event))) if execution else None
        if execution is None or row is None:
            self.ignored += 1
            return
        row(self, execution, event, now)

    def _time_passed(self, now: UnixSeconds) -> None:
        self._announcements.time_passed(now)
        while self._heap and self._heap[0][0] <= now:
            due, execution_id = heappop(self._heap)
            execution = self._executions.get(execution_id)
            if execution is not None and execution.expires == due:
                self._expired(execution, now)
        if self._next_heartbeat is not None and self._next_heartbeat <= now:
            self._heartbeat(now)

    # --- bidding ----------------------------------------------------------------------------

    def _announced(self, author: PeerID, message: say.JobAnnounced, now: UnixSeconds) -> None:
        if not self._bidding or (author, message.job_id) in self._by_job:
            return
        if len(self._by_job) >= MAX_ACTIVE or not self._announcements.announced(author, message, now):
            self.ignored += 1

    def _bid(
        self,
        execution_id: ExecutionID,
        author: PeerID,
        message: say.JobAnnounced,
        findings: Findings,
        now: UnixSeconds,
    ) -> None:
        """Bid for an execution, for which room is reserved."""
        execution = ComputeExecution(
            id=execution_id,
            job_id=message.job_id,
            requester_id=author,
            spec=message.spec,
            state=S.BID,
            created=now,
            modified=now,
            expires=now + RESERVED_FOR,
            input_disk=findings.disk,
        )
        self._keep(execution)
        self._by_job[(author, message.job_id)] = execution_id
        self._out.append(ev.LearnAddresses(author, message.addresses))
        bid = say.Bid(
            job_id=message.job_id,
            execution_id=execution_id,
            round=message.round,
            reserved_for=RESERVED_FOR,
            load=self._capacity.load,
            outlives_node=self._strategy.outlives_node(message.spec),
            input_bytes=findings.input_bytes,
            local_input_bytes=findings.local_input_bytes,
        )
        self._out.append(ev.Send(author, bid, now + RESERVED_FOR, durable=False))

    # --- rows of the table ------------------------------------------------------------------

    def _bid_accepted(self, execution: ComputeExecution, message: Any, now: UnixSeconds) -> None:
        moved = self._move(execution, S.PREPARING, now, lasts=PREPARE_WITHIN)
        self._out.append(ev.Prepare(moved))
        if self._next_heartbeat is None:
            self._next_heartbeat = now + HEARTBEAT_EVERY

    def _bid_rejected(self, execution: ComputeExecution, message: say.BidRejected, now: UnixSeconds) -> None:
        self._end(execution, S.REJECTED, message.reason, now)

    def _prepared(self, execution: ComputeExecution, event: ev.Prepared, now: UnixSeconds) -> None:
        lasts = execution.spec.execution_timeout + RUN_GRACE
        running = self._move(execution, S.RUNNING, now, lasts=lasts)
        self._out.append(ev.Run(running, outlives_node=self._strategy.outlives_node(execution.spec)))

    def _run_finished(self, execution: ComputeExecution, event: ev.RunFinished, now: UnixSeconds) -> None:
        self._capacity.release(execution.id)
        finished = execution.replace(result_cid=event.result_cid, sealed=event.sealed)
        self._propose(self._move(finished, S.PROPOSED, now, lasts=KEEP_PROPOSED), now)

    def _propose(self, execution: ComputeExecution, now: UnixSeconds) -> None:
        proposed = say.ResultProposed(
            job_id=execution.job_id, execution_id=execution.id, sealed=execution.sealed
        )
        self._out.append(ev.Send(execution.requester_id, proposed, now + KEEP_PROPOSED))

    def _run_vanished(self, execution: ComputeExecution, event: ev.RunVanished, now: UnixSeconds) -> None:
        self._out.append(ev.Prepare(self._move(execution, S.PREPARING, now, lasts=PREPARE_WITHIN)))

    def _result_accepted(
        self, execution: ComputeExecution, message: say.ResultAccepted, now: UnixSeconds
    ) -> None:
        self._out.append(ev.Publish(self._move(execution, S.PUBLISHING, now, lasts=PUBLISH_WITHIN)))

    def _result_rejected(
        self, execution: ComputeExecution, message: say.ResultRejected, now: UnixSeconds
    ) -> None:
        self._end(execution, S.REJECTED, message.reason, now)

    def _published(self, execution: ComputeExecution, event: ev.Published, now: UnixSeconds) -> None:
        published = execution.replace(published=event.result)
        self._say_published(published, now)
        self._end(published, S.COMPLETED, "published", now)

    def _say_published(self, execution: ComputeExecution, now: UnixSeconds) -> None:
        assert execution.published is not None
        published = say.ResultPublished(
            job_id=execution.job_id, execution_id=execution.id, result=execution.published
        )
        self._out.append(ev.Send(execution.requester_id, published, now + KEEP_PROPOSED))

    def _step_failed(self, execution: ComputeExecution, event: ev.StepFailed, now: UnixSeconds) -> None:
        self._fail(execution, event.reason, event.permanent, now)

    def _cancelled(self, execution: ComputeExecution, message: say.CancelExecution, now: UnixSeconds) -> None:
        self._out.append(ev.Stop(execution.id))
        self._end(execution, S.CANCELLED, message.reason, now)

    # --- clocks -----------------------------------------------------------------------------

    def _expired(self, execution: ComputeExecution, now: UnixSeconds) -> None:
        match execution.state:
            case S.BID:
                self._end(execution, S.EXPIRED, f"the bid was not answered in {RESERVED_FOR:g} s", now)
            case S.PREPARING:
                self._out.append(ev.Stop(execution.id))
                reason = f"inputs and image were not at hand within {PREPARE_WITHIN:g} s"
                self._fail(execution, reason, False, now)
            case S.RUNNING:
                self._out.append(ev.Stop(execution.id))
                limit = execution.spec.execution_timeout
                self._fail(execution, f"the run did not end at its time-out of {limit:g} s", False, now)
            case S.PROPOSED:
                self._end(execution, S.EXPIRED, "its requester never judged the result", now)
            case S.PUBLISHING:
                self._out.append(ev.Stop(execution.id))
                self._fail(execution, f"not published within {PUBLISH_WITHIN:g} s", False, now)
            case _:
                self._executions.pop(execution.id, None)

    def _heartbeat(self, now: UnixSeconds) -> None:
        lines: dict[PeerID, list[say.ExecutionProgress]] = {}
        for execution in self._executions.values():
            if execution.state in _WORKING:
                line = say.ExecutionProgress(execution_id=execution.id, state=execution.state)
                lines.setdefault(execution.requester_id, []).append(line)
        for requester, progress in lines.items():
            self._out.append(ev.Send(requester, say.Heartbeat(executions=tuple(progress)), now))
        self._next_heartbeat = now + HEARTBEAT_EVERY if lines else None

    # --- small things -----------------------------------------------------------------------

    def _fail(self, execution: ComputeExecution, reason: str, permanent: bool, now: UnixSeconds) -> None:
        self._say_failed(execution.requester_id, execution.job_id, execution.id, reason, permanent, now)
        self._end(execution, S.FAILED, reason, now)

    def _say_failed(
        self,
        to: PeerID,
        job_id: JobID,
        execution_id: ExecutionID,
        reason: str,
        permanent: bool,
        now: UnixSeconds,
    ) -> None:
        failed = say.ExecutionFailed(
            job_id=job_id, execution_id=execution_id, reason=reason[: say.MAX_REASON], permanent=permanent
        )
        self._out.append(ev.Send(to, failed, now + REPEAT_FAILURE_FOR))

    def _end(self, execution: ComputeExecution, state: ComputeState, reason: str, now: UnixSeconds) -> None:
        ended = self._move(execution, state, now, lasts=REMEMBER_ENDED, message=reason)
        self._capacity.release(execution.id)
        self._by_job.pop((execution.requester_id, execution.job_id), None)
        self._out.append(ev.CleanUp(ended))

    def _move(
        self,
        execution: ComputeExecution,
        state: ComputeState,
        now: UnixSeconds,
        *,
        lasts: float,
        message: str = "",
    ) -> ComputeExecution:
        moved = execution.replace(
            state=state, message=message[: say.MAX_REASON], modified=now, expires=now + lasts
        )
        self._keep(moved)
        return moved

    def _keep(self, execution: ComputeExecution) -> None:
        before = self._executions.get(execution.id)
        self._remember(execution)
        heappush(self._heap, (execution.expires, execution.id))
        # A crash may forget a bid: a requester that takes it up is told that nothing is known of it.
        only_bid = before is None or before.state is S.BID
        if not only_bid or execution.state is S.PREPARING:
            self._out.append(ev.Store(execution))

    def _remember(self, execution: ComputeExecution) -> None:
        self._executions[execution.id] = execution
        if execution.state in _WORKING:
            self._working.add(execution.id)
        else:
            self._working.discard(execution.id)


_HOLDS_ROOM = frozenset({S.BID, S.PREPARING, S.RUNNING})
_WORKING = frozenset({S.PREPARING, S.RUNNING, S.PROPOSED, S.PUBLISHING})

TRANSITIONS: dict[tuple[ComputeState, type], Callable[..., None]] = {
    (S.BID, say.BidAccepted): ComputeMachine._bid_accepted,
    (S.BID, say.BidRejected): ComputeMachine._bid_rejected,
    (S.PREPARING, ev.Prepared): ComputeMachine._prepared,
    (S.PREPARING, ev.StepFailed): ComputeMachine._step_failed,
    (S.RUNNING, ev.RunFinished): ComputeMachine._run_finished,
    (S.RUNNING, ev.RunVanished): ComputeMachine._run_vanished,
    (S.RUNNING, ev.StepFailed): ComputeMachine._step_failed,
    (S.PROPOSED, say.ResultAccepted): ComputeMachine._result_accepted,
    (S.PROPOSED, say.ResultRejected): ComputeMachine._result_rejected,
    (S.PUBLISHING, ev.Published): ComputeMachine._published,
    (S.PUBLISHING, ev.StepFailed): ComputeMachine._step_failed,
    **{
        (state, say.CancelExecution): ComputeMachine._cancelled
        for state in (S.BID, S.PREPARING, S.RUNNING, S.PROPOSED, S.PUBLISHING)
    },
}
"""What a requester may ask of an execution, and what its steps may report, by the state it is in.
The clocks' transitions stand in `_expired`; an execution begins in `_bid`."""

_FROM_REQUESTER = frozenset(
    {say.BidAccepted, say.BidRejected, say.ResultAccepted, say.ResultRejected, say.CancelExecution}
)
