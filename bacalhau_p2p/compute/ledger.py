"""The executions that a compute node has in memory, the room they hold, and what the machine asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from heapq import heappop, heappush

from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.state import ComputeState

S = ComputeState

WORKING = frozenset({S.PREPARING, S.RUNNING, S.PROPOSED, S.PUBLISHING})
"""States that heartbeats report to the requester."""


class Ledger:
    """Shared by the parts of the compute machine, which change it. It makes no decisions itself."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.executions: dict[ExecutionID, ComputeExecution] = {}
        self.actions: list[ev.Action] = []
        """What to do, in order."""
        self.ignored: Counter[str] = Counter()
        """Events that changed nothing, by kind and state: `ResultAccepted in Expired`."""
        self.heartbeat_due: UnixSeconds | None = None
        """When the next heartbeat is sent; None while there is nothing to send."""
        self._working: set[ExecutionID] = set()
        self._by_job: dict[tuple[PeerID, JobID], ExecutionID] = {}
        self._heap: list[tuple[UnixSeconds, ExecutionID]] = []

    def take_actions(self) -> list[ev.Action]:
        """The actions asked for since the last call."""
        actions, self.actions = self.actions, []
        return actions

    def ignore(self, event: object, where: str) -> None:
        """Count an event that changes nothing. `where` is one of a few phrases, never a text from a peer."""
        self.ignored[f"{type(event).__name__} {where}"] += 1

    # --- executions -------------------------------------------------------------------------

    @property
    def working(self) -> Collection[ExecutionID]:
        """Executions that are prepared, run, proposed or published."""
        return self._working

    @property
    def unfinished(self) -> int:
        """How many executions have not ended, bids among them."""
        return len(self._by_job)

    def has_part_in(self, requester: PeerID, job_id: JobID) -> bool:
        """Whether this node has a bid or an execution of this job that has not ended."""
        return (requester, job_id) in self._by_job

    def remember(self, execution: ComputeExecution) -> None:
        """Take an execution into memory, or replace what is known of it. Nothing is stored."""
        self.executions[execution.id] = execution
        if execution.state in WORKING:
            self._working.add(execution.id)
        else:
            self._working.discard(execution.id)
        key = (execution.requester_id, execution.job_id)
        if not execution.state.terminal:
            self._by_job[key] = execution.id
        elif self._by_job.get(key) == execution.id:
            del self._by_job[key]
        heappush(self._heap, (execution.expires, execution.id))

    def forget(self, execution: ComputeExecution) -> None:
        """Drop an ended execution from memory."""
        del self.executions[execution.id]

    # --- deadlines --------------------------------------------------------------------------

    def next_expiry(self) -> UnixSeconds | None:
        """When the state of some execution has lasted too long."""
        while self._heap:
            due, execution_id = self._heap[0]
            execution = self.executions.get(execution_id)
            if execution is not None and execution.expires == due:
                return due
            heappop(self._heap)
        return None

    def pop_expired(self, now: UnixSeconds) -> ComputeExecution | None:
        """The next execution whose state has lasted too long by `now`."""
        due = self.next_expiry()
        if due is None or due > now:
            return None
        _, execution_id = heappop(self._heap)
        return self.executions[execution_id]
