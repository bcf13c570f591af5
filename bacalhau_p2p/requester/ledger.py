"""The jobs that the requester has in memory, when each is due, and the actions that the machine asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.record import JobEntry, Slot

REPEAT_FOR = 3600.0
"""Seconds for which a verdict or a cancellation is repeated to a node that does not acknowledge it."""
REPEAT_STRAY_CANCEL_FOR = 60.0
"""Seconds for which a node is told to stop an execution that has ended here or was never known."""


class Ledger:
    """Shared by the parts of the requester's machine, which change it. It makes no decisions itself."""

    def __init__(self) -> None:
        self.jobs: dict[JobID, JobEntry] = {}
        self.job_of: dict[ExecutionID, JobID] = {}
        self.actions: list[ev.Action] = []
        """What to do, in order."""
        self.ignored: Counter[str] = Counter()
        """Events that changed nothing, by kind and state: `ResultProposed in Lost`."""
        self._heap: list[tuple[UnixSeconds, JobID]] = []

    def take_actions(self) -> list[ev.Action]:
        """The actions asked for since the last call."""
        actions, self.actions = self.actions, []
        return actions

    def ignore(self, event: object, where: str) -> None:
        """Count an event that changes nothing. `where` is one of a few phrases, never a text from a peer."""
        self.ignored[f"{type(event).__name__} {where}"] += 1

    # --- jobs -------------------------------------------------------------------------------

    def add(self, job: Job) -> JobEntry:
        """Take a job into memory, in the state that it has."""
        slots = [Slot(number) for number in range(job.spec.count)]
        entry = self.jobs[job.id] = JobEntry(job, slots, deadline=job.created + job.spec.total_timeout)
        return entry

    def resume(self, job: Job, executions: Sequence[Execution], now: UnixSeconds) -> JobEntry:
        """Take a job into memory as the store holds it, with its executions."""
        entry = self.add(job)
        self.job_of |= dict.fromkeys((execution.id for execution in executions), job.id)
        entry.restore(executions, now)
        return entry

    def of_execution(self, execution_id: ExecutionID) -> tuple[JobEntry, Execution] | None:
        """An execution and its job, if this requester knows them."""
        entry = self.jobs.get(self.job_of.get(execution_id, JobID("")))
        execution = entry.executions.get(execution_id) if entry else None
        return (entry, execution) if entry is not None and execution is not None else None

    def forget(self, entry: JobEntry) -> None:
        """Drop an ended job from memory."""
        del self.jobs[entry.job.id]
        for execution_id in entry.executions:
            self.job_of.pop(execution_id, None)

    # --- deadlines --------------------------------------------------------------------------

    def schedule(self, entry: JobEntry, due: UnixSeconds) -> None:
        """Set when this job is due next."""
        if due != entry.due:
            entry.due = due
            heappush(self._heap, (due, entry.job.id))

    def next_deadline(self) -> UnixSeconds | None:
        """When the first job is due."""
        while self._heap:
            due, job_id = self._heap[0]
            entry = self.jobs.get(job_id)
            if entry is not None and entry.due == due:
                return due
            heappop(self._heap)
        return None

    def pop_due(self, now: UnixSeconds) -> JobEntry | None:
        """The next job that is due by `now`; its caller schedules it again."""
        due = self.next_deadline()
        if due is None or due > now:
            return None
        _, job_id = heappop(self._heap)
        entry = self.jobs[job_id]
        entry.due = None
        return entry

    # --- messages ---------------------------------------------------------------------------

    def send(
        self,
        execution: Execution,
        kind: Callable[..., say.Message],
        now: UnixSeconds,
        *,
        repeat_for: float = REPEAT_FOR,
        **fields: str,
    ) -> None:
        """Send a message about an execution to its node."""
        if "reason" in fields:
            fields["reason"] = fields["reason"][: say.MAX_REASON]
        message = kind(job_id=execution.job_id, execution_id=execution.id, **fields)
        self.actions.append(ev.Send(execution.node_id, message, now + repeat_for))

    def send_stray_cancel(
        self, node: PeerID, job_id: JobID, execution_id: ExecutionID, reason: str, now: UnixSeconds
    ) -> None:
        """Tell a node to stop an execution that has ended here or was never known."""
        cancel = say.CancelExecution(job_id=job_id, execution_id=execution_id, reason=reason)
        self.actions.append(ev.Send(node, cancel, now + REPEAT_STRAY_CANCEL_FOR))
