"""What the requester's machine remembers of one job beyond its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bacalhau_p2p.model.base import ExecutionID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import ExecutionState

ACTIVE = frozenset(
    {ExecutionState.BID_ACCEPTED, ExecutionState.RESULT_PROPOSED, ExecutionState.RESULT_ACCEPTED}
)
"""States in which an execution fills its slot and its node must be heard of."""

SETTLED = frozenset({ExecutionState.COMPLETED, ExecutionState.RESULT_REJECTED})
"""States in which a slot has done its part."""

GONE = frozenset({ExecutionState.FAILED, ExecutionState.LOST})
"""States that leave a slot open again, unless another node publishes the same result."""


@dataclass(slots=True)
class Slot:
    """One of the job's `Count` places. It is filled by one execution after the other, until one settles."""

    number: int
    execution: ExecutionID | None = None
    attempts: int = 0


@dataclass(slots=True)
class Round:
    """One announcement and the answers to it."""

    number: int = 0
    began: UnixSeconds = 0.0
    began_before: UnixSeconds = 0.0
    """When the one before it began."""
    ends: UnixSeconds | None = None
    """None between rounds."""
    next_at: UnixSeconds | None = None
    """When the next one begins, if one is planned."""
    eligible: set[PeerID] = field(default_factory=set)
    """Nodes that were expected to answer when it began."""
    answered: set[PeerID] = field(default_factory=set)


@dataclass(slots=True)
class BidTerms:
    load: float
    expires: UnixSeconds


@dataclass(slots=True)
class JobEntry:
    """A job that this requester is responsible for."""

    job: Job
    slots: list[Slot]
    ends: UnixSeconds
    """The total time-out."""
    executions: dict[ExecutionID, Execution] = field(default_factory=dict)
    bids: dict[ExecutionID, BidTerms] = field(default_factory=dict)
    round: Round = field(default_factory=Round)
    heard: dict[ExecutionID, UnixSeconds] = field(default_factory=dict)
    """When the node of an active execution last gave a sign of it."""
    reconciled: dict[ExecutionID, UnixSeconds] = field(default_factory=dict)
    """When its node was last told what we think of it."""
    declined: dict[PeerID, str] = field(default_factory=dict)
    """Why nodes did not bid, for the user to read."""
    troubled: dict[PeerID, str] = field(default_factory=dict)
    """Nodes on which an execution of this job failed or was lost, and how."""
    permanent: set[PeerID] = field(default_factory=set)
    """Nodes which say that nobody can run this job."""
    open_since: UnixSeconds | None = None
    """Since when some slot has waited for a bid."""
    verifying: bool = False
    due: UnixSeconds | None = None

    @property
    def open_slots(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.execution is None]

    def of_slots(self) -> list[Execution]:
        """The executions that fill slots now."""
        return [self.executions[slot.execution] for slot in self.slots if slot.execution is not None]

    def next_clock(self) -> UnixSeconds:
        """The first of the job's own deadlines: its time-outs, and its rounds of bids."""
        due = self.ends
        if self.round.ends is not None:
            due = min(due, self.round.ends)
        if self.round.next_at is not None:
            due = min(due, self.round.next_at)
        if self.open_since is not None:
            due = min(due, self.open_since + self.job.spec.queue_timeout)
        return due

    def update(self, execution: Execution) -> None:
        """Replace the record of an execution, and drop what concerns only those under way."""
        self.executions[execution.id] = execution
        if execution.state.terminal:
            self.heard.pop(execution.id, None)
            self.reconciled.pop(execution.id, None)
            self.bids.pop(execution.id, None)

    def in_state(self, state: ExecutionState) -> list[Execution]:
        return [execution for execution in self.executions.values() if execution.state == state]

    def busy_nodes(self) -> set[PeerID]:
        """Nodes that hold a bid or an execution of this job, or have settled one: one node, one say."""
        return {
            execution.node_id
            for execution in self.executions.values()
            if execution.state in ACTIVE
            or execution.state in SETTLED
            or execution.state == ExecutionState.BID_RECEIVED
        }

    def restore(self, executions: Sequence[Execution], now: UnixSeconds) -> None:
        """Take up what the store holds: who fills the slots, and what became of earlier attempts."""
        self.executions = {execution.id: execution for execution in executions}
        for execution in sorted(executions, key=lambda execution: execution.modified):
            if execution.slot is None:
                continue
            slot = self.slots[execution.slot]
            slot.attempts += not execution.drained
            if execution.state in ACTIVE | SETTLED:
                slot.execution = execution.id
            elif execution.state in GONE:
                self.note_trouble(execution, execution.message)
        self.heard = {execution.id: now for execution in self.of_slots() if execution.state in ACTIVE}
        for execution in executions:
            if execution.state in GONE and execution.slot is not None:
                slot = self.slots[execution.slot]
                if slot.execution is None and self.has_published_twin(execution):
                    slot.execution = execution.id

    def note_trouble(self, execution: Execution, reason: str) -> None:
        """An execution that filled a slot failed or was lost."""
        self.troubled[execution.node_id] = reason
        if execution.permanent:
            self.permanent.add(execution.node_id)

    def has_published_twin(self, execution: Execution) -> bool:
        """Whether another node accepted for the very same result will or did publish it."""
        mine = execution.proposal
        return self.job.spec.deterministic and any(
            other.proposal is not None and mine is not None and other.proposal.result_cid == mine.result_cid
            for other in self.executions.values()
            if other.id != execution.id
            and other.state in (ExecutionState.RESULT_ACCEPTED, ExecutionState.COMPLETED)
        )

    def slot_of(self, execution_id: ExecutionID) -> Slot | None:
        return next((slot for slot in self.slots if slot.execution == execution_id), None)
