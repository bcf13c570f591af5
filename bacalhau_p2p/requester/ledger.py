"""The jobs that the requester has in memory, when each is due, and the actions that the machine asks for."""

from __future__ import annotations

from collections.abc import Callable, Set

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components import ledger as components
from bacalhau_p2p.components.ledger import Deadlines
from bacalhau_p2p.components.undo import UndoableDict, UndoableSet, new
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.history import BIDDING, MAX_BIDDING_TEXT, MAX_TEXT, admitted
from bacalhau_p2p.requester.placement import Placement
from bacalhau_p2p.requester.record import JobEntry
from bacalhau_p2p.requester.slots import slots_of

REMEMBER_ENDED_FOR = 120.0
"""Seconds for which an ended job stays in memory, to answer late messages with its state."""
MAX_ENDED = 1_000
"""Jobs that have ended and stay in memory, the latest ones. The store has more of them."""
REPEAT_FOR = 3600.0
"""Seconds for which a verdict or a cancellation is repeated to a node that does not acknowledge it."""
REPEAT_STRAY_CANCEL_FOR = 30.0
"""The same for the cancellation of an execution that has ended at the requester or is unknown there. It is
not stored: anybody may ask about executions, and a node that has one asks again."""
BIDS_IN_VAIN = 8
"""A bid in vain costs its node and the requester about as much as a broadcast costs so many nodes."""

NO_EXECUTION, NO_NODE = ExecutionID(""), PeerID("")


class Ledger(components.Ledger[ev.Action]):
    """The jobs of one requester, and what its machine asks for."""

    def __init__(self, connected: Set[PeerID] = frozenset()) -> None:
        """`connected` are the peers that are connected, at any time."""
        super().__init__()
        self._connected = connected
        self.jobs: dict[JobID, JobEntry] = UndoableDict()
        self.job_of: dict[ExecutionID, JobID] = UndoableDict()
        self._ended: dict[JobID, None] = UndoableDict()
        """Jobs that have ended, the first to end first."""
        self.deadlines: Deadlines[JobID] = Deadlines()
        """When the machine looks at each job again."""

    # --- jobs -------------------------------------------------------------------------------

    def add(self, job: Job) -> JobEntry:
        """Take a job into memory, in the state that it has."""
        entry = self.jobs[job.id] = new(_entry_of, job)
        return entry

    def resume(self, stored: ev.Resumed, now: UnixSeconds) -> JobEntry:
        """Take a job into memory as the store holds it, with its executions."""
        entry = self.add(stored.job)
        entry.told = stored.told
        self.job_of.update(dict.fromkeys((execution.id for execution in stored.executions), stored.job.id))
        entry.restore(stored.executions, now)
        self.tell(entry, EventKind.RESUMED, "its requester was started again", now)
        return entry

    def of_execution(self, execution_id: ExecutionID) -> tuple[JobEntry, Execution] | None:
        """An execution and its job, if this requester knows them."""
        entry = self.jobs.get(self.job_of.get(execution_id, JobID("")))
        execution = entry.executions.get(execution_id) if entry else None
        return (entry, execution) if entry is not None and execution is not None else None

    def retire(self, entry: JobEntry, now: UnixSeconds) -> None:
        """Keep of a job that has ended what late messages need, for a while, if it is one of the latest."""
        job_id = entry.job.id
        if job_id not in self._ended:
            entry.shrink()
            self._ended[job_id] = None
            self.deadlines.set(job_id, now + REMEMBER_ENDED_FOR)
            if len(self._ended) > MAX_ENDED:
                self.forget(self.jobs[next(iter(self._ended))])

    def forget(self, entry: JobEntry) -> None:
        """Drop an ended job from memory."""
        del self.jobs[entry.job.id]
        self._ended.pop(entry.job.id, None)
        self.deadlines.drop(entry.job.id)
        for execution_id in entry.executions:
            self.job_of.pop(execution_id, None)

    # --- histories --------------------------------------------------------------------------

    def tell(
        self,
        entry: JobEntry,
        kind: EventKind,
        message: str,
        now: UnixSeconds,
        *,
        state: str = "",
        execution_id: ExecutionID = NO_EXECUTION,
        node_id: PeerID = NO_NODE,
    ) -> None:
        """Append an event to the history of a job, unless it has too many."""
        number = entry.told + 1
        kept = admitted(kind, number, len(entry.slots))
        if kept is None:
            return
        entry.told = number
        if kept is not kind:
            message, state, execution_id, node_id = (
                "further events are not recorded",
                "",
                NO_EXECUTION,
                NO_NODE,
            )
        text = message[: MAX_BIDDING_TEXT if kind in BIDDING else MAX_TEXT]
        event = HistoryEvent(entry.job.id, number, now, kept, text, state, execution_id, node_id)
        self.actions.append(ev.Append(event))

    # --- messages ---------------------------------------------------------------------------

    def announce(self, entry: JobEntry, message: say.Announcement, now: UnixSeconds) -> None:
        """Announce a job to those that are asked in its round: to all, or to these alone."""
        if entry.round.asked.directly:
            self._send_to(entry.round.asked.nodes, message, now)
        else:
            self.actions.append(ev.Broadcast(message))

    def close(self, entry: JobEntry, reason: str, now: UnixSeconds, *, all_answer: bool = False) -> None:
        """Tell those that may yet bid on a job that no more bids are wanted: one by one, unless so many of
        them cannot be reached that their bids in vain would cost more than a broadcast. With `all_answer`
        those that are asked answer in any case, and only nodes that remember the job are told."""
        current = entry.round
        silent = set() if all_answer else current.asked.nodes - current.answered
        told = entry.remembering | (silent & self._connected)
        unreached = len(silent - told) + (0 if all_answer else current.asked.others)
        closed = say.JobClosed(job_id=entry.job.id, reason=reason)
        entry.remembering, current.closed = UndoableSet(), True
        if current.asked.is_for_strangers or unreached * BIDS_IN_VAIN > current.asked.eligible:
            self.actions.append(ev.Broadcast(closed))
        else:
            self._send_to(told, closed, now)

    def _send_to(self, nodes: Set[PeerID], message: say.Message, now: UnixSeconds) -> None:
        self.actions += [ev.Send(node, message, now, durable=False) for node in sorted(nodes)]

    def send(
        self,
        execution: Execution,
        kind: Callable[..., say.Message],
        now: UnixSeconds,
        *,
        repeat_for: float = REPEAT_FOR,
        durable: bool = True,
        reason: str | None = None,
        **fields: object,
    ) -> None:
        """Send a message about an execution to its node."""
        if reason is not None:
            fields["reason"] = reason[: say.MAX_REASON]
        message = kind(job_id=execution.job_id, execution_id=execution.id, **fields)
        self.actions.append(ev.Send(execution.node_id, message, now + repeat_for, durable=durable))

    def send_stray_cancel(
        self, node: PeerID, job_id: JobID, execution_id: ExecutionID, reason: str, now: UnixSeconds
    ) -> None:
        """Cancel an execution on a node that has ended at the requester or is unknown there."""
        cancel = say.CancelExecution(job_id=job_id, execution_id=execution_id, reason=reason)
        self.actions.append(ev.Send(node, cancel, now + REPEAT_STRAY_CANCEL_FOR, durable=False))


def _entry_of(job: Job) -> JobEntry:
    ops = job.spec.is_ops
    return JobEntry(
        job,
        Placement.of(slots_of(job), divided=job.spec.divided, replaces=not ops),
        deadline=job.created + job.spec.total_timeout,
        ops=ops,
        divided=job.spec.divided,
    )
