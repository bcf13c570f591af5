"""The requester's state machine: every job it is responsible for, from submission to its end.

Pure: events and the time go in, actions come out. `job_transitions` and `execution_transitions` hold every
transition, one table each. An event without a row changes nothing, because networks repeat, reorder and
drop messages. It is counted in `ignored`, and if it shows that a node works on an execution that has ended,
the node is told to stop.

`docs/states.md` describes the states in prose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.ledger import RETRY_FAULTY_DEADLINE
from bacalhau_p2p.components.protocol import Random
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Proposal
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester import execution_transitions as executions
from bacalhau_p2p.requester import job_transitions as jobs
from bacalhau_p2p.requester import ops_nodes
from bacalhau_p2p.requester.groups import ACTIVE
from bacalhau_p2p.requester.invitations import Invitations
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.liveness import LOST_AFTER_SURVIVING, Liveness
from bacalhau_p2p.requester.penalties import Penalties
from bacalhau_p2p.requester.progress import Progress
from bacalhau_p2p.requester.record import JobEntry
from bacalhau_p2p.requester.reports import Report, Reports
from bacalhau_p2p.requester.rounds import Rounds
from bacalhau_p2p.requester.spec_delivery import deliver_spec
from bacalhau_p2p.requester.supervision import Supervision


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the machine needs of the node around it; nothing in here reaches the world."""

    peer_id: PeerID
    addresses: tuple[str, ...]
    """Where compute nodes can dial this node."""
    open_proposal: Callable[[bytes], Proposal]
    """Opens a sealed proposal: a pure function. Raises RemoteProtocolError."""
    rng: Random
    lost_after_surviving: float = LOST_AFTER_SURVIVING
    """Seconds without contact after which an execution is lost that outlives its node; 0 treats it like any
    other."""


class RequesterMachine:
    """`handle` an event, then perform the actions in order; call again at `next_deadline()`."""

    def __init__(self, environment: Environment) -> None:
        self._peer_id = environment.peer_id
        self._liveness = Liveness(environment.peer_id, environment.lost_after_surviving)
        self._ledger = Ledger(self._liveness.connected)
        self._penalties = Penalties(self._ledger)
        self._invitations = Invitations(
            self._ledger, self._liveness, self._penalties, addresses=environment.addresses
        )
        self._rounds = Rounds(
            self._ledger, self._liveness, self._invitations, self._penalties, rng=environment.rng
        )
        self._supervision = Supervision(self._ledger, self._liveness, self._invitations)
        self._progress = Progress(self._ledger, self._rounds, self._liveness)
        self._reports = Reports(environment.open_proposal)

    # --- the outside ------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: UnixSeconds) -> list[ev.Action]:
        """Take in one event, and return what to do, in order. If this raises, the event changed nothing."""
        with self._ledger.all_or_nothing():
            _HANDLERS[type(event)](self, event, now)
        return self._ledger.take_actions()

    def next_deadline(self) -> UnixSeconds | None:
        """When to call `handle(TimePassed(), now)` if nothing happens before."""
        return self._ledger.deadlines.next()

    @property
    def jobs(self) -> dict[JobID, JobEntry]:
        """The jobs in memory, for tests and invariants; not to be changed."""
        return self._ledger.jobs

    def state_of(self, event: Any) -> str:
        """The states of the job and of the execution that an event names, for the log."""
        concerned = getattr(event, "message", event)
        entry = self._ledger.jobs.get(getattr(concerned, "job_id", JobID("")))
        if entry is None:
            return ""
        execution = entry.executions.get(getattr(concerned, "execution_id", ExecutionID("")))
        return f"{entry.job.state}, {execution.state}" if execution is not None else str(entry.job.state)

    def penalties(self, now: UnixSeconds) -> dict[PeerID, float]:
        """The nodes that are chosen last because they wasted time, with the seconds that are left."""
        return self._penalties.left(now)

    def take_faults(self) -> list[tuple[str, Exception]]:
        """What raised when its deadline had come, since the last call."""
        return self._ledger.take_faults()

    @property
    def ignored(self) -> Counter[str]:
        """Events that changed nothing, by kind and state: late, repeated, forged or nonsense."""
        return self._ledger.ignored

    @property
    def unknown(self) -> int:
        """How many events were about jobs or executions that this machine does not know."""
        return self._ledger.unknown

    # --- a user's requests ------------------------------------------------------------------

    def _submitted(self, event: ev.Submitted, now: UnixSeconds) -> None:
        matching = sorted(self._liveness.matching(event.spec)) if event.spec.is_ops else []
        too_many = ops_nodes.too_many(matching)
        nodes = () if too_many else tuple(matching)
        entry = jobs.begin(self._ledger, event, self._peer_id, now, nodes=nodes)
        if too_many is not None:
            jobs.move(self._ledger, entry, too_many, now)
        else:
            if entry.ops:
                ops_nodes.gather(entry, now)
            self._rounds.begin(entry, now)
        self._schedule(entry, now)

    def _resumed(self, event: ev.Resumed, now: UnixSeconds) -> None:
        entry = self._ledger.resume(event, now)
        waits = entry.job.state in (JobState.PENDING, JobState.QUEUED)
        if waits and len(entry.placement.open) < len(entry.slots):
            jobs.move(self._ledger, entry, jobs.SlotFilled(), now)  # that record was refused by the store
        self._progress.check_timeouts(entry, now)  # before anything is announced again
        if not entry.job.state.terminal:
            self._supervision.reconcile(entry, entry.placement.active, now)
        self._advance(entry, now)

    def _cancel_requested(self, event: ev.CancelRequested, now: UnixSeconds) -> None:
        entry = self._ledger.jobs.get(event.job_id)
        if entry is None or entry.job.state.terminal:
            self._ledger.ignore(event, "for an ended job")
            return
        message = event.reason or "cancelled by the user"
        jobs.move(self._ledger, entry, jobs.Cancelled(message=message), now)
        self._schedule(entry, now)

    # --- messages ---------------------------------------------------------------------------

    def _message_received(self, event: ev.MessageReceived, now: UnixSeconds) -> None:
        message, author = event.message, event.author
        if isinstance(message, say.Heartbeat):
            self._supervision.heartbeat(author, message, now)
            return
        entry = self._ledger.jobs.get(getattr(message, "job_id", JobID("")))
        changed = False  # what changes nothing must cost little: strangers know the ids of jobs
        match message:
            case say.BidDeclined():
                if entry is not None:
                    self._rounds.declined(entry, author, message, now)
                    changed = author in self._liveness.nodes
            case say.SpecWanted():
                deliver_spec(self._ledger, entry, author, message, now)
                return
            case say.Bid():
                known = message.execution_id in self._ledger.job_of
                self._rounds.bid(entry, author, message, now)
                changed = not known and message.execution_id in self._ledger.job_of
            case say.ResultProposed() | say.ResultPublished() | say.ExecutionFailed():
                changed = self._reported(entry, author, message, now)
            case _:
                self._ledger.ignore(message, "at a requester")
        if entry is not None and changed:
            self._advance(entry, now)

    def _reported(self, entry: JobEntry | None, author: PeerID, message: Report, now: UnixSeconds) -> bool:
        """A node reports about an execution: move it, or tell the node that it has ended here. Whether it
        was moved."""
        execution = entry.executions.get(message.execution_id) if entry else None
        if entry is None or execution is None:
            self._ledger.ignore_unknown(message, "execution")
            self._ledger.send_stray_cancel(
                author, message.job_id, message.execution_id, "unknown at the requester", now
            )
            return False
        if execution.node_id != author:
            self._ledger.ignore(message, "from another node")
            return False
        if execution.state in ACTIVE:
            entry.note_contact(execution.id, now)
        event = self._reports.event_of(execution, message, ops=entry.ops)
        if event is not None:
            executions.move(self._ledger, entry, execution, event, now)
            self._invitations.reported(entry, entry.executions[execution.id], now)
            return True
        self._ledger.ignore(message, f"in {execution.state}")
        if execution.state.terminal and execution.state != ExecutionState.COMPLETED:
            reason = f"already {execution.state} at the requester"
            self._ledger.send_stray_cancel(author, message.job_id, execution.id, reason, now)
        return False

    # --- nodes ------------------------------------------------------------------------------

    def _node_seen(self, event: ev.NodeInfoReceived, now: UnixSeconds) -> None:
        was_unknown = event.info.id not in self._liveness.nodes
        new, freer = self._liveness.update(event.info)
        if was_unknown:
            self._presence_changed(event.info.id, now)
        if new or freer:  # it may replace one that is waited for
            for entry in self._ongoing():
                if entry.watchlist.unreachable:
                    entry.watchlist.renew_unreachable()
                    self._schedule(entry, now)
        if freer:
            for entry in self._rounds.bring_forward(event.info, now):
                self._schedule(entry, now)

    def _node_went_stale(self, event: ev.NodeWentStale, now: UnixSeconds) -> None:
        self._liveness.nodes.pop(event.peer, None)
        self._presence_changed(event.peer, now)

    def _presence_changed(self, node: PeerID, now: UnixSeconds) -> None:
        """A node is known, or is not any more: ops jobs may give it up sooner."""
        for entry in self._ongoing():
            if entry.ops:
                ops_nodes.note_absence(entry, node, self._liveness)
                self._schedule(entry, now)

    def _connection_broke(self, event: ev.NodeDisconnected, now: UnixSeconds) -> None:
        self._liveness.note_disconnected(event.peer, now)
        for entry in self._ongoing():
            self._supervision.connection_changed(entry, event.peer)
            self._rounds.end_if_complete(entry, now)
            self._schedule(entry, now)

    def _connection_stands(self, event: ev.NodeConnected, now: UnixSeconds) -> None:
        if not self._liveness.note_connected(event.peer):
            return
        for entry in self._ongoing():
            self._supervision.connection_changed(entry, event.peer)
            self._supervision.reconcile(entry, entry.placement.nodes.active.get(event.peer, ()), now)
            self._schedule(entry, now)

    # --- verification -----------------------------------------------------------------------

    def _verified(self, event: ev.Verified, now: UnixSeconds) -> None:
        entry = self._verifying(event)
        if entry is not None:
            self._progress.apply_verdict(entry, event.group, event.verdict, now)
            self._advance(entry, now)

    def _verifier_failed(self, event: ev.VerifierFailed, now: UnixSeconds) -> None:
        entry = self._verifying(event)
        if entry is not None:
            self._progress.fail_verification(entry, event.reason, now)
            self._schedule(entry, now)

    def _verifying(self, event: ev.Verified | ev.VerifierFailed) -> JobEntry | None:
        entry = self._ledger.jobs.get(event.job_id)
        if entry is None or event.group not in entry.placement.groups.verifying:
            self._ledger.ignore(event, "for an ended job" if entry is None else f"in {entry.job.state}")
            return None
        return entry

    # --- records ----------------------------------------------------------------------------

    def _not_stored(self, event: ev.NotStored, now: UnixSeconds) -> None:
        """Fail the job or execution whose record cannot be stored. If it has ended, store at least that."""
        record, message = event.record, f"this node failed: {event.reason}"
        job_id = record.job_id if isinstance(record, Execution) else getattr(record, "id", JobID(""))
        entry = self._ledger.jobs.get(job_id)
        if entry is None:
            self._ledger.ignore(event, "for an ended job")
            return
        if isinstance(record, Execution):
            self._strip(entry, record, message, now)
        elif not entry.job.state.terminal:
            jobs.move(self._ledger, entry, jobs.RecordRefused(message=message), now)
        else:  # or its user would never learn that it has ended
            entry.job = entry.job.replace(message=message[: say.MAX_REASON], revision=entry.job.revision + 1)
            self._ledger.actions.append(ev.Store(entry.job))
        self._advance(entry, now)

    def _strip(self, entry: JobEntry, record: Execution, message: str, now: UnixSeconds) -> None:
        """Leave out of an execution what its node reported, and fail it if it has not ended."""
        execution = entry.executions[record.id].replace(proposal=None, published=None)
        entry.update(execution)
        if executions.expects(execution.state, executions.RecordRefused):
            refused = executions.RecordRefused(message=message)
            executions.move(self._ledger, entry, execution, refused, now)
        else:
            stripped = execution.replace(message=message[: say.MAX_REASON])
            entry.update(stripped)
            self._ledger.actions.append(ev.Store(stripped))

    # --- time -------------------------------------------------------------------------------

    def _time_passed(self, event: ev.TimePassed, now: UnixSeconds) -> None:
        while (job_id := self._ledger.deadlines.pop(now)) is not None:
            with self._ledger.isolated(f"job {job_id}"):
                self._check(self._ledger.jobs[job_id], now)
            if job_id in self._ledger.jobs and job_id not in self._ledger.deadlines:
                self._ledger.deadlines.set(job_id, now + RETRY_FAULTY_DEADLINE)

    def _check(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Do what is due for this job."""
        if entry.job.state.terminal:
            self._ledger.forget(entry)
            return
        self._progress.check_timeouts(entry, now)
        if not entry.job.state.terminal:
            self._supervision.check(entry, now)
            self._rounds.check(entry, now)
        self._advance(entry, now)

    def _advance(self, entry: JobEntry, now: UnixSeconds) -> None:
        self._progress.advance(entry, now)
        self._schedule(entry, now)

    def _schedule(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Set when this job is due next."""
        if entry.job.state.terminal:
            self._ledger.retire(entry, now)
            return
        due = min(entry.next_clock(), self._supervision.next_check(entry, now))
        if entry.ops:
            due = min(due, ops_nodes.next_absence(entry, self._liveness, now))
        self._ledger.deadlines.set(entry.job.id, due)

    def _ongoing(self) -> list[JobEntry]:
        return [entry for entry in self._ledger.jobs.values() if not entry.job.state.terminal]


_HANDLERS: dict[type[ev.Event], Callable[[RequesterMachine, Any, UnixSeconds], None]] = {
    ev.Submitted: RequesterMachine._submitted,
    ev.Resumed: RequesterMachine._resumed,
    ev.CancelRequested: RequesterMachine._cancel_requested,
    ev.MessageReceived: RequesterMachine._message_received,
    ev.NodeInfoReceived: RequesterMachine._node_seen,
    ev.NodeWentStale: RequesterMachine._node_went_stale,
    ev.NodeDisconnected: RequesterMachine._connection_broke,
    ev.NodeConnected: RequesterMachine._connection_stands,
    ev.Verified: RequesterMachine._verified,
    ev.VerifierFailed: RequesterMachine._verifier_failed,
    ev.NotStored: RequesterMachine._not_stored,
    ev.TimePassed: RequesterMachine._time_passed,
}
