"""The executions that a compute node has in memory, the room they hold, and what the machine asks for."""

from __future__ import annotations

from collections.abc import Collection

from bacalhau_p2p.bprotocol.messages import MAX_REASON, Announcement, BidDeclined
from bacalhau_p2p.components import ledger as components
from bacalhau_p2p.components.ledger import Deadlines
from bacalhau_p2p.components.undo import UndoableDict, UndoableSet
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.held_jobs import HeldJobs
from bacalhau_p2p.compute.kept_results import KeptResults
from bacalhau_p2p.compute.presence import Presence
from bacalhau_p2p.compute.record import ComputeExecution, without_spec
from bacalhau_p2p.compute.shares import ShareRules, Shares
from bacalhau_p2p.compute.unused_bids import UnusedBids
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.state import ComputeState

S = ComputeState

WORKING = frozenset({S.PREPARING, S.RUNNING, S.PROPOSED, S.PUBLISHING})
"""States that heartbeats report to the requester."""
HOLDS_ROOM = frozenset({S.PREPARING, S.RUNNING})
"""Stored states in which an execution holds room."""
KEEPS_RESULT = frozenset({S.PROPOSED, S.PUBLISHING})
"""States in which an execution has a result that is not published yet."""
MAX_ENDED = 2_000
"""Executions that have ended and stay in memory, the latest ones. The store has more of them."""


class Ledger(components.Ledger[ev.Action]):
    """The executions of one compute node, and what its machine asks for."""

    def __init__(self, capacity: Capacity, share_rules: ShareRules, *, gone_after: float) -> None:
        super().__init__()
        self.capacity = capacity
        self.unused_bids = UnusedBids()
        self.shares = Shares(capacity, share_rules, self.unused_bids)
        self.presence = Presence(gone_after)
        self.held_jobs = HeldJobs()
        self.kept_results = KeptResults(capacity.limit.disk)
        self.executions: dict[ExecutionID, ComputeExecution] = UndoableDict()
        self.expiries: Deadlines[ExecutionID] = Deadlines()
        """When the state of each execution has lasted too long."""
        self.heartbeat_due: UnixSeconds | None = None
        """When the next heartbeat is sent; None while there is nothing to send."""
        self._working: set[ExecutionID] = UndoableSet()
        self._ended: dict[ExecutionID, None] = UndoableDict()
        """Those that have ended, the first to end first."""
        self._unfinished: set[ExecutionID] = UndoableSet()
        self._by_job: dict[tuple[PeerID, JobID], set[ExecutionID]] = UndoableDict()
        """Those of each job that have not ended."""

    @property
    def working(self) -> Collection[ExecutionID]:
        """Executions that are prepared, run, proposed or published."""
        return self._working

    @property
    def unfinished(self) -> int:
        """How many executions have not ended, bids among them."""
        return len(self._unfinished)

    def has_part_in(self, requester: PeerID, job_id: JobID, *, several: bool = False) -> bool:
        """Whether this node has a bid or an execution of this job that has not ended. `several`: it may have
        several executions, so that only a bid counts."""
        mine = self._by_job.get((requester, job_id), ())
        return any(self.executions[each].state is S.BID for each in mine) if several else bool(mine)

    def remember(self, execution: ComputeExecution) -> None:
        """Add an execution, or replace its record in memory. This stores nothing."""
        ended = execution.state.terminal
        self.executions[execution.id] = without_spec(execution) if ended else execution
        if execution.state in WORKING:
            self._working.add(execution.id)
        else:
            self._working.discard(execution.id)
        if execution.state in KEEPS_RESULT:
            self.kept_results.keep(execution)
        elif ended:
            self.kept_results.drop(execution)
        key = (execution.requester_id, execution.job_id)
        mine = self._by_job.get(key)
        if not ended:
            self._unfinished.add(execution.id)
            if mine is None:
                mine = self._by_job[key] = UndoableSet()
            mine.add(execution.id)
            self.held_jobs.hold(*key, execution.spec)
        elif mine is not None and execution.id in mine:
            self._unfinished.discard(execution.id)
            mine.discard(execution.id)
            if not mine:
                del self._by_job[key]
                self.held_jobs.drop(*key)
        self.expiries.set(execution.id, execution.expires)
        if ended:
            self._ended[execution.id] = None
            if len(self._ended) > MAX_ENDED:
                self.forget(next(iter(self._ended)))

    def decline(
        self, author: PeerID, message: Announcement, reason: str, *, busy: bool, now: UnixSeconds
    ) -> None:
        """Tell a requester that this node does not bid, if it wants to know. `busy`: it may later."""
        if message.answers_wanted:
            self.actions.append(ev.LearnAddresses(author, message.addresses))
            declined = BidDeclined(
                job_id=message.job_id, round=message.round, reason=reason[:MAX_REASON], busy=busy
            )
            self.actions.append(ev.Send(author, declined, now))

    def forget(self, execution_id: ExecutionID) -> None:
        """Drop an ended execution from memory."""
        del self.executions[execution_id]
        self._ended.pop(execution_id, None)
        self.expiries.drop(execution_id)
