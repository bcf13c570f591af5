"""The requester's jobs in memory, and what comes of changing them: records to keep, messages to send."""

from __future__ import annotations

from collections.abc import Callable

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.record import JobEntry

REPEAT_FOR = 3600.0
"""Seconds for which a verdict or a cancellation is repeated to a node that does not acknowledge it."""


class Ledger:
    """Every change of a record goes through here, so that none is forgotten on its way to the store."""

    def __init__(self) -> None:
        self.jobs: dict[JobID, JobEntry] = {}
        self.job_of: dict[ExecutionID, JobID] = {}
        self.out: list[ev.Action] = []
        """What is to be done, in order."""

    def take(self) -> list[ev.Action]:
        """What has been asked for since it was last taken."""
        out, self.out = self.out, []
        return out

    def set_job(self, entry: JobEntry, state: JobState, message: str, now: UnixSeconds) -> None:
        job = entry.job
        if (job.state, job.message) == (state, message):
            return
        entry.job = job.replace(
            state=state, message=message[: say.MAX_REASON], modified=now, revision=job.revision + 1
        )
        self.out.append(ev.Store(entry.job))

    def move(
        self, entry: JobEntry, execution: Execution, state: ExecutionState, message: str, now: UnixSeconds
    ) -> None:
        moved = execution.replace(state=state, message=message, modified=now)
        entry.executions[execution.id] = moved
        if state.terminal:
            entry.heard.pop(execution.id, None)
            entry.reconciled.pop(execution.id, None)
            entry.bids.pop(execution.id, None)
        self.out.append(ev.Store(moved))

    def send(
        self,
        execution: Execution,
        kind: Callable[..., say.Message],
        now: UnixSeconds,
        *,
        repeat_for: float = REPEAT_FOR,
        **fields: str,
    ) -> None:
        """Tell an execution's node something of it."""
        if "reason" in fields:
            fields["reason"] = fields["reason"][: say.MAX_REASON]
        message = kind(job_id=execution.job_id, execution_id=execution.id, **fields)
        self.out.append(ev.Send(execution.node_id, message, now + repeat_for))

    def send_cancel(
        self, author: PeerID, job_id: JobID, execution_id: ExecutionID, reason: str, now: UnixSeconds
    ) -> None:
        """Tell a node that works on something which is over here to stop."""
        cancel = say.CancelExecution(job_id=job_id, execution_id=execution_id, reason=reason)
        self.out.append(ev.Send(author, cancel, now + 60.0))

    def forget(self, entry: JobEntry) -> None:
        del self.jobs[entry.job.id]
        for execution_id in entry.executions:
            self.job_of.pop(execution_id, None)
