"""What the requester's machine remembers of one job beyond its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from bacalhau_p2p.bprotocol.outlines import LargeSpec
from bacalhau_p2p.components.undo import Undoable, UndoableDict, UndoableSet
from bacalhau_p2p.model.base import ExecutionID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.job import NO_SPEC
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester.audience import NOBODY, Asked

ACTIVE = frozenset(
    {ExecutionState.BID_ACCEPTED, ExecutionState.RESULT_PROPOSED, ExecutionState.RESULT_ACCEPTED}
)
"""States in which an execution fills a slot and its node must stay in contact."""

SETTLED = frozenset({ExecutionState.COMPLETED, ExecutionState.RESULT_REJECTED})
"""States in which a slot is done."""

GONE = frozenset({ExecutionState.FAILED, ExecutionState.LOST})
"""States that open the slot again, unless another node publishes the same result."""

_ASKING = GONE | {ExecutionState.RESULT_PROPOSED}


@dataclass(slots=True)
class Slot(Undoable):
    """One of the places of a job. Executions fill it one after the other, until one of them settles."""

    number: int
    group: int = 0
    """The slots whose executions do the same, so that their results are compared: one partition of a job that
    is divided, one node of an ops job, and otherwise all."""
    node: PeerID | None = None
    """The only node that may fill it, in an ops job; None if any may, because none is known that matches."""
    execution: ExecutionID | None = None
    """The execution that fills it; None while it is open."""
    attempts: int = 0
    """Executions that have filled it so far, without those that a node handed back."""


@dataclass(slots=True)
class Round(Undoable):
    """One announcement and the answers to it."""

    number: int = 0
    began: UnixSeconds = 0.0
    previous_began: UnixSeconds = 0.0
    """When the round before this one began."""
    ends: UnixSeconds | None = None
    """None between rounds."""
    ends_by: UnixSeconds = inf
    """When it ends at the latest, because nodes hold room for their bids."""
    next_at: UnixSeconds | None = None
    """When the next round begins, if one is planned."""
    asked: Asked = NOBODY
    """Who may bid."""
    answers_wanted: bool = True
    """Whether those that may bid and do not were asked to say so."""
    late: bool = False
    """It is no announcement, but bids that came between two of them."""
    planned: UnixSeconds | None = None
    """When the next round was to begin before such bids came."""
    closed: bool = False
    """Whether those that might have bid were told that no more bids are wanted."""
    widened: int = 0
    """Rounds, since the latest placement, that were not open to everybody and brought too few bids."""
    answered: set[PeerID] = field(default_factory=UndoableSet)
    given: dict[PeerID, int] = field(default_factory=UndoableDict)
    """How often each node was given the spec."""


@dataclass(slots=True)
class BidTerms:
    """What a bid offers beyond the record of its execution."""

    load: float
    expires: UnixSeconds


@dataclass(slots=True)
class JobEntry(Undoable):
    """A job that this requester is responsible for."""

    job: Job
    slots: list[Slot]
    deadline: UnixSeconds
    """When its total timeout has passed."""
    executions: dict[ExecutionID, Execution] = field(default_factory=UndoableDict)
    bids: dict[ExecutionID, BidTerms] = field(default_factory=UndoableDict)
    round: Round = field(default_factory=Round)
    ops: bool = False
    """It runs once on each of its nodes: `JobSpec.is_ops`, also when the spec is no longer in memory."""
    gathers_until: UnixSeconds = 0.0
    """Until when nodes may join an ops job that the requester did not know when it was submitted."""
    divided: bool = False
    """A node may have several of its executions: `JobSpec.divided`."""
    large_spec: LargeSpec | None = None
    """Its spec as it is announced and delivered, if it is large, from the first round on."""
    last_contact: dict[ExecutionID, UnixSeconds] = field(default_factory=UndoableDict)
    """When the node of an active execution was last in contact about it."""
    reconciled_at: dict[ExecutionID, UnixSeconds] = field(default_factory=UndoableDict)
    """When an active execution was last reconciled with its node."""
    preparation_told: dict[ExecutionID, int] = field(default_factory=UndoableDict)
    """Events about the preparation of an active execution that the history has."""
    declined: dict[PeerID, str] = field(default_factory=UndoableDict)
    """Why nodes did not bid, for the user to read."""
    remembering: set[PeerID] = field(default_factory=UndoableSet)
    """Nodes that had no room for it, or for all that they might have bid. They bid later, until they are told
    that it is placed."""
    failures: dict[PeerID, str] = field(default_factory=UndoableDict)
    """Nodes on which an execution of this job failed or was lost, and how."""
    permanent_failures: set[PeerID] = field(default_factory=UndoableSet)
    """Nodes that report that no node can run this job."""
    open_since: UnixSeconds | None = None
    """Since when some slot has been open."""
    retry_at: UnixSeconds = 0.0
    """When the job is announced again after its latest failure."""
    verifying: set[int] = field(default_factory=UndoableSet)
    """The groups about which the verifier has been asked, and has not answered."""
    told: int = 0
    """Events in its history."""

    @property
    def open_slots(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.execution is None]

    def placed_executions(self) -> list[Execution]:
        """The executions that fill slots now."""
        return [self.executions[slot.execution] for slot in self.slots if slot.execution is not None]

    def next_clock(self) -> UnixSeconds:
        """The first of the job's own deadlines: its timeouts, and its rounds of bids."""
        due = self.deadline
        if self.round.ends is not None:
            due = min(due, self.round.ends)
        if self.round.next_at is not None:
            due = min(due, self.round.next_at)
        if self.open_since is not None:
            due = min(due, self.open_since + self.job.spec.queue_timeout)
        return due

    def update(self, execution: Execution) -> None:
        """Replace the record of an execution, and drop what concerns only those that have not ended."""
        self.executions[execution.id] = execution
        if execution.state.terminal:
            self.last_contact.pop(execution.id, None)
            self.reconciled_at.pop(execution.id, None)
            self.preparation_told.pop(execution.id, None)
            self.bids.pop(execution.id, None)

    def shrink(self) -> None:
        """Drop what nobody asks about any more: the job has ended. Users and nodes choose how large it is."""
        self.job, self.large_spec = self.job.replace(spec=NO_SPEC), None
        self.executions = UndoableDict(
            {each.id: each.replace(proposal=None, published=None) for each in self.executions.values()}
        )
        self.declined, self.failures = UndoableDict(), UndoableDict()
        self.remembering = UndoableSet()
        self.round.asked, self.round.answered, self.round.given = NOBODY, UndoableSet(), UndoableDict()

    def in_state(self, state: ExecutionState) -> list[Execution]:
        return [execution for execution in self.executions.values() if execution.state == state]

    def partners(self) -> set[PeerID]:
        """Nodes that have a bid on this job, or an execution that is active or settled."""
        return {
            execution.node_id
            for execution in self.executions.values()
            if execution.state in ACTIVE
            or execution.state in SETTLED
            or execution.state == ExecutionState.BID_RECEIVED
        }

    def busy_nodes(self) -> set[PeerID]:
        """Nodes that can fill no slot that is open: those that have a part in the job. Of a job that is
        divided a node gets several executions, but none that does the same as another."""
        if not self.divided:
            return self.partners()
        open_groups = {slot.group for slot in self.open_slots}
        if not open_groups:
            return set()
        working = self.nodes_by_group()
        return set[PeerID].intersection(*(working.get(group, set()) for group in open_groups))

    def nodes_by_group(self) -> dict[int, set[PeerID]]:
        """The nodes whose executions in each group are active or settled."""
        found: dict[int, set[PeerID]] = {}
        for execution in self.executions.values():
            if execution.slot is not None and (execution.state in ACTIVE or execution.state in SETTLED):
                found.setdefault(self.slots[execution.slot].group, set()).add(execution.node_id)
        return found

    def groups_to_move(self) -> list[int]:
        """The groups in which the state of an execution asks that it is judged, or replaced."""
        found = dict[int, None]()
        for slot in self.slots:
            if slot.execution is not None and self.executions[slot.execution].state in _ASKING:
                found[slot.group] = None
        return list(found)

    def slots_of(self, group: int) -> list[Slot]:
        """The slots of a group."""
        if not (self.divided or self.ops):
            return self.slots
        size = 1 if self.ops else self.job.spec.group_size
        return self.slots[group * size : (group + 1) * size]

    def restore(self, executions: Sequence[Execution], now: UnixSeconds) -> None:
        """Take over what the store holds: which executions fill slots, and what became of earlier ones."""
        self.executions = UndoableDict({execution.id: execution for execution in executions})
        for execution in sorted(executions, key=lambda execution: execution.modified):
            if execution.slot is None:
                continue
            slot = self.slots[execution.slot]
            slot.attempts += not execution.drained
            if execution.state in ACTIVE | SETTLED or self.is_final(execution):
                slot.execution = execution.id
            if execution.state in GONE:
                self.record_failure(execution, execution.message)
        self.last_contact = UndoableDict({e.id: now for e in self.placed_executions() if e.state in ACTIVE})
        for execution in executions:
            if execution.state in GONE and execution.slot is not None:
                slot = self.slots[execution.slot]
                if slot.execution is None and self.is_published_elsewhere(execution):
                    slot.execution = execution.id

    def is_final(self, execution: Execution) -> bool:
        """Whether an execution that is gone is not replaced, because in an ops job no other node can do the
        same."""
        return self.ops and execution.state in GONE and not execution.drained

    def record_failure(self, execution: Execution, reason: str) -> None:
        """Note that an execution which filled a slot failed or was lost."""
        self.failures[execution.node_id] = reason.partition("\n")[0]  # below it are the last lines of output
        if execution.permanent:
            self.permanent_failures.add(execution.node_id)

    def is_published_elsewhere(self, execution: Execution) -> bool:
        """Whether another node publishes, or has published, the same result as this execution gave."""
        mine = execution.proposal
        return self.job.spec.deterministic and any(
            other.proposal is not None and mine is not None and other.proposal.result_cid == mine.result_cid
            for other in self.executions.values()
            if other.id != execution.id
            and other.state in (ExecutionState.RESULT_ACCEPTED, ExecutionState.COMPLETED)
            and self.are_alike(execution, other)
        )

    def are_alike(self, one: Execution, other: Execution) -> bool:
        """Whether two executions do the same."""
        return (
            one.slot is not None
            and other.slot is not None
            and self.slots[one.slot].group == self.slots[other.slot].group
        )

    def partition_of(self, execution: Execution) -> int:
        """Which partition of the job an execution does whose bid was accepted."""
        return 0 if execution.slot is None else self.job.spec.partition_of(execution.slot).index

    def slot_of(self, execution_id: ExecutionID) -> Slot | None:
        """The slot that this execution fills."""
        return next((slot for slot in self.slots if slot.execution == execution_id), None)
