"""The requester's state machine: every job it is responsible for, from submission to its end.

Pure: events and the time go in, actions come out. Two tables hold every transition. A message for
which the table has no row changes nothing, because networks repeat, reorder and drop; if it shows
that a node works on something that is over here, the node is told so.

`docs/states.md` describes the states in prose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job, Proposal
from bacalhau_p2p.model.state import ComputeState, ExecutionState, JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.liveness import LOST_AFTER_SURVIVING, Liveness
from bacalhau_p2p.requester.record import ACTIVE, GONE, JobEntry, Slot
from bacalhau_p2p.requester.rounds import Rounds

S = ExecutionState

ATTEMPTS = 3
"""Executions that a slot gets."""
RECONCILE_EVERY = 60.0
"""Seconds without a change of an execution after which its node is told what we think of it."""
FELL_SILENT = "fell silent"
REMEMBER_ENDED = 120.0
"""Seconds for which an ended job stays in memory, to answer late messages by more than `unknown`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the machine needs of the node around it; all of it pure."""

    peer_id: PeerID
    addresses: Callable[[], tuple[str, ...]]
    open_proposal: Callable[[bytes], Proposal]
    """Opens a sealed proposal; raises RemoteProtocolError."""
    rng: Callable[[], float]
    lost_after_surviving: float = LOST_AFTER_SURVIVING
    """Seconds without contact; 0 gives up what outlives its node no later than anything else."""


class RequesterMachine:
    """`handle` an event, then perform the actions in order; call again at `next_deadline()`."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._ledger = Ledger()
        self._liveness = Liveness(environment.lost_after_surviving)
        self._rounds = Rounds(
            self._ledger, self._liveness, addresses=environment.addresses, rng=environment.rng
        )
        self._heap: list[tuple[UnixSeconds, JobID]] = []
        self.ignored = 0
        """Messages that changed nothing: late, repeated, forged or nonsense."""

    # --- the outside ------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: UnixSeconds) -> list[ev.Action]:
        """Take in one event; what is to be done comes back, in order."""
        _EVENTS[type(event)](self, event, now)
        return self._ledger.take()

    def next_deadline(self) -> UnixSeconds | None:
        """When to call `handle(TimePassed(), now)` if nothing happens before."""
        while self._heap:
            due, job_id = self._heap[0]
            entry = self._ledger.jobs.get(job_id)
            if entry is not None and entry.due == due:
                return due
            heappop(self._heap)
        return None

    @property
    def jobs(self) -> dict[JobID, JobEntry]:
        """What the machine has in memory, for tests and invariants; not to be changed."""
        return self._ledger.jobs

    # --- events -----------------------------------------------------------------------------

    def _submitted(self, event: ev.Submitted, now: UnixSeconds) -> None:
        job = Job(
            id=event.job_id,
            spec=event.spec,
            state=JobState.PENDING,
            message="waiting for bids",
            requester_id=self._environment.peer_id,
            created=now,
            modified=now,
        )
        entry = JobEntry(
            job=job,
            slots=[Slot(number) for number in range(event.spec.count)],
            ends=now + event.spec.total_timeout,
        )
        self._ledger.jobs[job.id] = entry
        self._ledger.out.append(ev.Store(job))
        self._rounds.begin(entry, now)
        self._reschedule(entry, now)

    def _resumed(self, event: ev.Resumed, now: UnixSeconds) -> None:
        job = event.job
        entry = JobEntry(
            job=job,
            slots=[Slot(number) for number in range(job.spec.count)],
            ends=job.created + job.spec.total_timeout,
        )
        self._ledger.jobs[job.id] = entry
        self._ledger.job_of |= dict.fromkeys((execution.id for execution in event.executions), job.id)
        entry.restore(event.executions)
        entry.heard = {e.id: now for e in entry.of_slots() if e.state in ACTIVE}
        for execution in event.executions:
            if execution.state not in GONE or execution.slot is None:
                continue
            slot = entry.slots[execution.slot]
            if slot.execution is None and entry.has_published_twin(execution):
                slot.execution = execution.id
        self._reconcile(entry, now, lambda execution: True)
        self._progress(entry, now)

    def _cancel_requested(self, event: ev.CancelRequested, now: UnixSeconds) -> None:
        entry = self._ledger.jobs.get(event.job_id)
        if entry is not None and not entry.job.state.terminal:
            self._end(entry, JobState.STOPPED, event.reason or "cancelled by its user", now)
            self._reschedule(entry, now)

    def _message_received(self, event: ev.MessageReceived, now: UnixSeconds) -> None:
        message, author = event.message, event.author
        if isinstance(message, say.Heartbeat):
            self._heard_of(author, message, now)
            return
        entry = self._ledger.jobs.get(getattr(message, "job_id", JobID("")))
        if isinstance(message, say.BidDeclined):
            if entry is not None:
                self._rounds.declined(entry, author, message, now)
        elif isinstance(message, say.Bid):
            if not self._rounds.bid(entry, author, message, now):
                self.ignored += 1
        elif type(message) in _FROM_COMPUTE:
            self._from_compute(entry, author, message, now)
        else:
            self.ignored += 1
            return
        if entry is not None:
            self._progress(entry, now)

    def _from_compute(self, entry: JobEntry | None, author: PeerID, message: Any, now: UnixSeconds) -> None:
        execution = entry.executions.get(message.execution_id) if entry else None
        if entry is None or execution is None:
            self.ignored += 1
            self._ledger.send_cancel(author, message.job_id, message.execution_id, "unknown here", now)
            return
        if execution.node_id != author:
            self.ignored += 1
            return
        if execution.state in ACTIVE:
            entry.heard[execution.id] = now
        row = TRANSITIONS.get((execution.state, type(message)))
        if row is None:
            self.ignored += 1
            if execution.state.terminal and execution.state != S.COMPLETED:
                self._ledger.send_cancel(
                    author, message.job_id, execution.id, f"it is {execution.state} here", now
                )
            return
        row(self, entry, execution, message, now)

    def _node_seen(self, event: ev.NodeSeen, now: UnixSeconds) -> None:
        new, freer = self._liveness.saw(event.info)
        if new:  # it may take the place of one that is waited for
            for entry in self._ledger.jobs.values():
                if not entry.job.state.terminal:
                    self._reschedule(entry, now)
        if freer:
            for entry in self._rounds.bring_forward(event.info, now):
                self._reschedule(entry, now)

    def _node_went_stale(self, event: ev.NodeWentStale, now: UnixSeconds) -> None:
        self._liveness.nodes.pop(event.peer, None)

    def _connection_broke(self, event: ev.ConnectionBroke, now: UnixSeconds) -> None:
        self._liveness.broken[event.peer] = now
        for entry in self._ledger.jobs.values():
            if not entry.job.state.terminal:
                self._rounds.maybe_end(entry, now)
                self._reschedule(entry, now)

    def _connection_stands(self, event: ev.ConnectionStands, now: UnixSeconds) -> None:
        if self._liveness.broken.pop(event.peer, None) is None:
            return
        for entry in self._ledger.jobs.values():
            if not entry.job.state.terminal:
                self._reconcile(entry, now, lambda execution: execution.node_id == event.peer)
                self._reschedule(entry, now)

    def _verified(self, event: ev.Verified, now: UnixSeconds) -> None:
        entry = self._ledger.jobs.get(event.job_id)
        if entry is None or entry.job.state.terminal or not entry.verifying:
            return
        entry.verifying = False
        verdict = event.verdict
        for execution in entry.in_state(S.RESULT_PROPOSED):
            if execution.id in verdict.accepted:
                self._ledger.move(entry, execution, S.RESULT_ACCEPTED, "verified; publishing", now)
                self._ledger.send(execution, say.ResultAccepted, now)
            elif execution.id in verdict.rejected:
                reason = verdict.reason or "the verifier rejected it"
                self._ledger.move(entry, execution, S.RESULT_REJECTED, reason, now)
                self._ledger.send(execution, say.ResultRejected, now, reason=reason)
        if not verdict.accepted:
            self._end(entry, JobState.FAILED, verdict.reason or "no result was accepted", now)
        self._progress(entry, now)

    def _verifier_failed(self, event: ev.VerifierFailed, now: UnixSeconds) -> None:
        entry = self._ledger.jobs.get(event.job_id)
        if entry is not None and not entry.job.state.terminal and entry.verifying:
            entry.verifying = False
            self._end(entry, JobState.FAILED, f"the verifier failed: {event.reason}", now)
            self._reschedule(entry, now)

    def _time_passed(self, event: ev.TimePassed, now: UnixSeconds) -> None:
        while (due := self.next_deadline()) is not None and due <= now:
            _, job_id = heappop(self._heap)
            entry = self._ledger.jobs[job_id]
            entry.due = None
            if entry.job.state.terminal:
                self._ledger.forget(entry)
                continue
            self._look_at_clocks(entry, now)
            self._progress(entry, now)

    # --- rows of the table ------------------------------------------------------------------

    def _proposed(
        self, entry: JobEntry, execution: Execution, message: say.ResultProposed, now: UnixSeconds
    ) -> None:
        try:
            proposal = self._environment.open_proposal(message.sealed)
            claims = (proposal.job_id, proposal.execution_id, proposal.node_id)
            if claims != (execution.job_id, execution.id, execution.node_id):
                raise RemoteProtocolError("the proposal was made for another execution or node")
        except RemoteProtocolError as error:
            self._trouble(entry, execution, S.FAILED, f"its proposal is not valid: {error}", now)
            self._ledger.send(execution, say.CancelExecution, now, reason="the proposal is not valid")
            return
        changed = execution.replace(proposal=proposal)
        self._ledger.move(entry, changed, S.RESULT_PROPOSED, "ran; waiting for verification", now)

    def _bid_withdrawn(
        self, entry: JobEntry, execution: Execution, message: say.ExecutionFailed, now: UnixSeconds
    ) -> None:
        self._ledger.move(entry, execution, S.FAILED, message.reason, now)

    def _execution_failed(
        self, entry: JobEntry, execution: Execution, message: say.ExecutionFailed, now: UnixSeconds
    ) -> None:
        execution = execution.replace(permanent=message.permanent, drained=message.drained)
        slot = entry.slot_of(execution.id)
        if message.drained and slot is not None:
            slot.attempts -= 1  # it was no fault of the job's
        self._trouble(entry, execution, S.LOST if message.drained else S.FAILED, message.reason, now)

    def _published(
        self, entry: JobEntry, execution: Execution, message: say.ResultPublished, now: UnixSeconds
    ) -> None:
        assert execution.proposal is not None
        if message.result.cid != execution.proposal.result_cid:
            reason = f"it published {message.result.cid}, not what was verified"
            self._trouble(entry, execution, S.FAILED, reason, now)
            self._ledger.send(execution, say.CancelExecution, now, reason=reason)
            return
        self._ledger.move(entry, execution.replace(published=message.result), S.COMPLETED, "published", now)

    # --- progress of a job ------------------------------------------------------------------

    def _trouble(
        self, entry: JobEntry, execution: Execution, state: ExecutionState, reason: str, now: UnixSeconds
    ) -> None:
        """An execution that filled a slot is gone: empty the slot."""
        entry.note_trouble(execution, reason)
        self._ledger.move(entry, execution, state, reason, now)
        slot = entry.slot_of(execution.id)
        if slot is not None and not entry.has_published_twin(execution):
            slot.execution = None

    def _progress(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Whatever follows from where the executions stand."""
        if not entry.job.state.terminal:
            self._fail_if_hopeless(entry, now)
        if not entry.job.state.terminal:
            self._reopen_if_unpublished(entry)
            if entry.open_slots:
                if entry.round.ends is None and entry.round.next_at is None:
                    self._rounds.begin(entry, now)
            else:
                self._verify_or_complete(entry, now)
        self._reschedule(entry, now)

    def _reopen_if_unpublished(self, entry: JobEntry) -> None:
        """A twin that should have published was lost too: somebody must run it again."""
        executions = entry.of_slots()
        gone = [e for e in executions if e.state in GONE]
        if gone and not any(e.state in (S.RESULT_ACCEPTED, S.COMPLETED) for e in executions):
            for execution in gone:
                slot = entry.slot_of(execution.id)
                assert slot is not None
                slot.execution = None

    def _fail_if_hopeless(self, entry: JobEntry, now: UnixSeconds) -> None:
        # One node's word that a job cannot be run ends it, unless the user asked several nodes
        # because no single one is trusted: then a second must agree.
        witnesses = min(2, len(entry.slots)) if entry.job.spec.deterministic else 1
        if len(entry.permanent) >= witnesses:
            peer = sorted(entry.permanent)[0]
            self._end(entry, JobState.FAILED, entry.troubled[peer], now)
            return
        for slot in entry.open_slots:
            if slot.attempts >= ATTEMPTS:
                last = list(entry.troubled.values())[-1]
                self._end(entry, JobState.FAILED, f"{last} (attempt {slot.attempts} of {ATTEMPTS})", now)
                return

    def _verify_or_complete(self, entry: JobEntry, now: UnixSeconds) -> None:
        executions = entry.of_slots()
        proposed = [e for e in executions if e.state == S.RESULT_PROPOSED]
        if proposed:
            if not entry.verifying and not any(e.state == S.BID_ACCEPTED for e in executions):
                entry.verifying = True
                # A slot that was refilled late is judged beside those accepted before.
                judged = (S.RESULT_PROPOSED, S.RESULT_ACCEPTED, S.COMPLETED)
                proposals = tuple(
                    e.proposal for e in executions if e.state in judged and e.proposal is not None
                )
                self._ledger.out.append(ev.Verify(entry.job.id, entry.job.spec, proposals))
            return
        if all(e.state.terminal for e in executions) and any(e.state == S.COMPLETED for e in executions):
            completed = sum(e.state == S.COMPLETED for e in executions)
            rejected = sum(e.state == S.RESULT_REJECTED for e in executions)
            note = f"; {rejected} of {len(executions)} results rejected" if rejected else ""
            self._end(
                entry, JobState.COMPLETED, f"{completed} result{'s'[: completed > 1]} published{note}", now
            )

    def _end(self, entry: JobEntry, state: JobState, message: str, now: UnixSeconds) -> None:
        bidding = entry.open_since is not None
        entry.open_since = entry.round.ends = entry.round.next_at = None
        entry.verifying = False
        self._ledger.set_job(entry, state, message, now)
        for execution in list(entry.executions.values()):
            if execution.state == S.BID_RECEIVED:
                self._rounds.reject(entry, execution, "the job is over", now)
            elif execution.state in ACTIVE:
                self._ledger.move(entry, execution, S.CANCELLED, f"the job is {state}", now)
                self._ledger.send(
                    execution, say.CancelExecution, now, reason=f"the job is {state}: {message}"
                )
        if bidding:
            self._ledger.out.append(ev.Broadcast(say.JobClosed(job_id=entry.job.id, reason=str(state))))

    # --- clocks -----------------------------------------------------------------------------

    def _look_at_clocks(self, entry: JobEntry, now: UnixSeconds) -> None:
        spec = entry.job.spec
        if now >= entry.ends:
            reason = f"not done within its total time-out of {spec.total_timeout:g} s: {entry.job.message}"
            self._end(entry, JobState.FAILED, reason, now)
            return
        if entry.open_since is not None and now >= entry.open_since + spec.queue_timeout:
            missing = len(entry.open_slots)
            self._end(
                entry,
                JobState.FAILED,
                f"no node for {missing} of {len(entry.slots)} executions within the queue time-out of "
                f"{spec.queue_timeout:g} s: {self._rounds.why_nobody(entry)}",
                now,
            )
            return
        for execution in list(entry.executions.values()):
            if execution.state in ACTIVE and now >= self._liveness.lost_at(entry, execution):
                reason = f"its node {execution.node_id[-8:]} {FELL_SILENT}"
                self._trouble(entry, execution, S.LOST, reason, now)
                self._ledger.send(execution, say.CancelExecution, now, reason="it was given up as lost")
            elif execution.state in ACTIVE and now >= self._liveness.missed_at(entry, execution):
                reason = (
                    f"waiting for node {execution.node_id[-8:]}, which cannot be reached: "
                    f"{self._liveness.why_waited_for(execution)}"
                )
                if not entry.open_slots:
                    self._ledger.set_job(entry, JobState.RUNNING, reason, now)
            elif execution.state == S.BID_RECEIVED and now >= entry.bids[execution.id].expires:
                self._ledger.move(entry, execution, S.BID_REJECTED, "the bid expired", now)
        self._reconcile(entry, now, lambda execution: now >= self._reconcile_at(entry, execution))
        self._rounds.look_at_clock(entry, now)

    def _reconcile(self, entry: JobEntry, now: UnixSeconds, concerned: Callable[[Execution], bool]) -> None:
        """Tell nodes what their active executions are to us."""
        for execution in entry.executions.values():
            if execution.state in ACTIVE and concerned(execution):
                entry.reconciled[execution.id] = now
                view = say.ExecutionView(
                    job_id=execution.job_id, execution_id=execution.id, state=execution.state
                )
                message = say.Reconcile(executions=(view,))
                self._ledger.out.append(ev.Send(execution.node_id, message, now + RECONCILE_EVERY))

    def _reconcile_at(self, entry: JobEntry, execution: Execution) -> UnixSeconds:
        """When nothing has changed for so long that a message may have been given up."""
        return max(execution.modified, entry.reconciled.get(execution.id, 0.0)) + RECONCILE_EVERY

    def _reschedule(self, entry: JobEntry, now: UnixSeconds) -> None:
        if entry.job.state.terminal:
            due = entry.job.modified + REMEMBER_ENDED
        else:
            clocks = [entry.ends, entry.round.ends, entry.round.next_at]
            if entry.open_since is not None:
                clocks.append(entry.open_since + entry.job.spec.queue_timeout)
            for execution in entry.executions.values():
                if execution.state in ACTIVE:
                    missed = self._liveness.missed_at(entry, execution)
                    clocks.append(missed if missed > now else self._liveness.lost_at(entry, execution))
                    clocks.append(self._reconcile_at(entry, execution))
                elif execution.state == S.BID_RECEIVED:
                    clocks.append(entry.bids[execution.id].expires)
            due = min(clock for clock in clocks if clock is not None)
        if due != entry.due:
            entry.due = due
            heappush(self._heap, (due, entry.job.id))

    # --- small things -----------------------------------------------------------------------

    def _heard_of(self, author: PeerID, message: say.Heartbeat, now: UnixSeconds) -> None:
        self._liveness.broken.pop(author, None)
        for line in message.executions:
            entry = self._ledger.jobs.get(self._ledger.job_of.get(line.execution_id, JobID("")))
            execution = entry.executions.get(line.execution_id) if entry else None
            if entry is None or execution is None:
                self._ledger.send_cancel(author, JobID("unknown"), line.execution_id, "unknown here", now)
            elif execution.node_id != author:
                self.ignored += 1
            elif execution.state in ACTIVE:
                entry.heard[execution.id] = now
                if not entry.open_slots:
                    self._ledger.set_job(entry, JobState.RUNNING, "", now)
                note = _PROGRESS_WORDS.get(line.state)
                if execution.state == S.BID_ACCEPTED and note and execution.message != note:
                    self._ledger.move(entry, execution, execution.state, note, now)
            elif execution.state not in (S.BID_RECEIVED, S.COMPLETED):
                reason = f"it is {execution.state} here"
                self._ledger.send_cancel(author, entry.job.id, execution.id, reason, now)


_PROGRESS_WORDS = {
    ComputeState.PREPARING: "preparing",
    ComputeState.RUNNING: "running",
}

TRANSITIONS: dict[tuple[ExecutionState, type[say.Message]], Callable[..., None]] = {
    (S.BID_RECEIVED, say.ExecutionFailed): RequesterMachine._bid_withdrawn,
    (S.BID_ACCEPTED, say.ResultProposed): RequesterMachine._proposed,
    (S.BID_ACCEPTED, say.ExecutionFailed): RequesterMachine._execution_failed,
    (S.RESULT_PROPOSED, say.ExecutionFailed): RequesterMachine._execution_failed,
    (S.RESULT_ACCEPTED, say.ExecutionFailed): RequesterMachine._execution_failed,
    (S.RESULT_ACCEPTED, say.ResultPublished): RequesterMachine._published,
}
"""What a compute node may say of an execution, by the state it has here. Other transitions come of
bids (`Rounds`), verdicts (`_verified`), clocks (`_look_at_clocks`) and the job's end (`_end`)."""

_FROM_COMPUTE = frozenset(kind for _, kind in TRANSITIONS)

_EVENTS: dict[type[ev.Event], Callable[..., None]] = {
    ev.Submitted: RequesterMachine._submitted,
    ev.Resumed: RequesterMachine._resumed,
    ev.CancelRequested: RequesterMachine._cancel_requested,
    ev.MessageReceived: RequesterMachine._message_received,
    ev.NodeSeen: RequesterMachine._node_seen,
    ev.NodeWentStale: RequesterMachine._node_went_stale,
    ev.ConnectionBroke: RequesterMachine._connection_broke,
    ev.ConnectionStands: RequesterMachine._connection_stands,
    ev.Verified: RequesterMachine._verified,
    ev.VerifierFailed: RequesterMachine._verifier_failed,
    ev.TimePassed: RequesterMachine._time_passed,
}
