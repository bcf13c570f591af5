"""What the requester's machine remembers of one job beyond its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from bacalhau_p2p.bprotocol.outlines import LargeSpec
from bacalhau_p2p.components.undo import Undoable, UndoableDict, UndoableSet
from bacalhau_p2p.model.base import ExecutionID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.job import NO_SPEC
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester.audience import NOBODY, Asked
from bacalhau_p2p.requester.groups import ACTIVE, CONFIRMED, GONE, SETTLED, Slot
from bacalhau_p2p.requester.placement import Placement
from bacalhau_p2p.requester.watchlist import Watchlist

_DUE_ANEW = frozenset({ExecutionState.BID_RECEIVED, ExecutionState.BID_ACCEPTED})
"""States in which something is due earlier than before. Afterwards each report makes it later."""


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
    doubted: Set[PeerID] = frozenset()
    """Those that were asked of which nobody waits for an answer: they have lately not answered."""
    answers_wanted: bool = True
    """Whether those that may bid and do not were asked to say so."""
    late: bool = False
    """It is no announcement, but bids that came between two of them."""
    short: bool = False
    """Whether it is open no longer than a first round: what comes later is hardly needed."""
    planned: UnixSeconds | None = None
    """When the next round was to begin before such bids came."""
    closed: bool = False
    """Whether those that might have bid were told that no more bids are wanted."""
    widened: int = 0
    """Rounds, since the latest placement, that were not open to everybody and brought too few bids."""
    answered: set[PeerID] = field(default_factory=UndoableSet)
    given: dict[PeerID, int] = field(default_factory=UndoableDict)
    """How often each node was given the spec."""


class Setback(NamedTuple):
    """An execution that filled a slot and came to nothing, for a reason that may be its node's."""

    began: UnixSeconds
    """When its bid came."""
    ended: UnixSeconds
    silent: bool
    """Whether its node was silent."""


@dataclass(slots=True)
class BidTerms:
    """What a bid offers beyond the record of its execution."""

    load: float
    expires: UnixSeconds


@dataclass(slots=True)
class JobEntry(Undoable):
    """A job that this requester is responsible for."""

    job: Job
    placement: Placement
    deadline: UnixSeconds
    """When its total timeout has passed."""
    watchlist: Watchlist = field(default_factory=Watchlist)
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
    steps_told: dict[ExecutionID, int] = field(default_factory=UndoableDict)
    """How often the node of an active execution has said that it prepares it, or that its run has begun."""
    preparation_told: dict[ExecutionID, int] = field(default_factory=UndoableDict)
    """Events about the preparation of an active execution that the history has."""
    declined: dict[PeerID, str] = field(default_factory=UndoableDict)
    """Why nodes did not bid, for the user to read."""
    remembering: set[PeerID] = field(default_factory=UndoableSet)
    """Nodes that had no room for it, or for all that they might have bid. They bid later, until they are told
    that it is placed."""
    failures: dict[PeerID, str] = field(default_factory=UndoableDict)
    """Nodes on which an execution of this job failed or was lost, and how."""
    times_failed: dict[PeerID, int] = field(default_factory=UndoableDict)
    """How often, for each of these nodes."""
    permanent_failures: set[PeerID] = field(default_factory=UndoableSet)
    """Nodes that report that no node can run this job."""
    setbacks: dict[int, dict[PeerID, Setback]] = field(default_factory=UndoableDict)
    """Of each group the latest setback on each node, until another node completes what this one did not."""
    open_since: UnixSeconds | None = None
    """Since when some slot has been open."""
    retry_at: UnixSeconds = 0.0
    """When the job is announced again after its latest failure."""
    told: int = 0
    """Events in its history."""

    @property
    def slots(self) -> Sequence[Slot]:
        return self.placement.slots

    @property
    def executions(self) -> Mapping[ExecutionID, Execution]:
        """By their ids, in the order of their bids. `update` changes them."""
        return self.placement.executions

    @property
    def is_open(self) -> bool:
        """Whether some slot is open."""
        return bool(self.placement.open)

    @property
    def open_slots(self) -> list[Slot]:
        return [self.slots[number] for number in self.placement.open]

    def placed_executions(self) -> list[Execution]:
        """The executions that fill slots now."""
        return self.placement.filling(self.slots)

    def note_open(self, now: UnixSeconds) -> None:
        """Some slot is open, from now on or since before."""
        if self.open_since is None:
            self.open_since, self.watchlist.absence = now, None

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
        """Take in an execution, or replace its record. Drop what concerns only those that have not ended."""
        leaves = self.placement.put(execution)
        if execution.state.terminal:
            self.watchlist.drop(execution.id)
            self.last_contact.pop(execution.id, None)
            self.reconciled_at.pop(execution.id, None)
            self.steps_told.pop(execution.id, None)
            self.preparation_told.pop(execution.id, None)
            self.bids.pop(execution.id, None)
        elif execution.state in _DUE_ANEW:
            self.watchlist.renew(execution.id)
        if leaves:  # its node may take over what another one does
            self.watchlist.renew_unreachable()

    def note_contact(self, name: ExecutionID, now: UnixSeconds) -> None:
        """The node of an active execution was in contact about it."""
        self.last_contact[name] = now
        if name in self.watchlist.unreachable:
            self.watchlist.renew(name)

    def shrink(self) -> None:
        """Drop what nobody asks about any more: the job has ended. Users and nodes choose how large it is."""
        self.job, self.large_spec = self.job.replace(spec=NO_SPEC), None
        self.placement.shrink()
        self.watchlist = Watchlist()
        self.declined, self.failures, self.setbacks = UndoableDict(), UndoableDict(), UndoableDict()
        self.times_failed = UndoableDict()
        self.remembering = UndoableSet()
        self.round.asked, self.round.answered, self.round.given = NOBODY, UndoableSet(), UndoableDict()

    def slots_of(self, group: int) -> Sequence[Slot]:
        """The slots of a group."""
        return self.placement.slots_of(group)

    def received_bids(self) -> list[Execution]:
        """The bids that are neither accepted nor rejected."""
        return self.placement.records(self.placement.bids)

    def groups_to_judge(self) -> list[int]:
        """The groups about which the verifier is to be asked."""
        return sorted(self.placement.groups.to_judge)

    def restore(self, executions: Sequence[Execution], now: UnixSeconds) -> None:
        """Take over what the store holds: which executions fill slots, and what became of earlier ones."""
        placement = self.placement
        for execution in executions:
            self.update(execution)
        for execution in sorted(executions, key=lambda execution: execution.modified):
            if execution.slot is None:
                continue
            slot = self.slots[execution.slot]
            placement.count_attempt(slot, 0 if execution.drained else 1)
            if execution.state in ACTIVE | SETTLED or self.is_final(execution):
                placement.fill(slot, execution)
            if execution.state in GONE:
                self.record_failure(execution, execution.message)
        self.last_contact = UndoableDict(dict.fromkeys(placement.active, now))
        for name in placement.active:
            self.watchlist.renew(name)
        for execution in executions:
            if execution.state in GONE and execution.slot is not None:
                slot = self.slots[execution.slot]
                if slot.execution is None and self.is_published_elsewhere(execution):
                    placement.fill(slot, execution)

    def is_final(self, execution: Execution) -> bool:
        """Whether an execution that is gone is not replaced, because in an ops job no other node can do the
        same."""
        return self.ops and execution.state in GONE and not execution.drained

    def record_failure(self, execution: Execution, reason: str) -> None:
        """Note that an execution which filled a slot failed or was lost."""
        self.failures[execution.node_id] = reason.partition("\n")[0]  # below it are the last lines of output
        self.times_failed[execution.node_id] = self.times_failed.get(execution.node_id, 0) + 1
        if execution.permanent:
            self.permanent_failures.add(execution.node_id)

    def note_setback(self, group: int, node: PeerID, setback: Setback) -> None:
        """Note that an execution in this group came to nothing."""
        theirs = self.setbacks.get(group)
        if theirs is None:
            theirs = self.setbacks[group] = UndoableDict()
        theirs[node] = setback

    def is_published_elsewhere(self, execution: Execution) -> bool:
        """Whether another node publishes, or has published, the same result as this execution gave."""
        mine, placement = execution.proposal, self.placement
        if mine is None or execution.slot is None or not self.job.spec.deterministic:
            return False
        group = self.slots[execution.slot].group
        return placement.groups[group].confirmed > 0 and any(
            other.proposal is not None and other.proposal.result_cid == mine.result_cid
            for other in placement.filling(placement.slots_of(group))
            if other.id != execution.id and other.state in CONFIRMED
        )

    def partition_of(self, execution: Execution) -> int:
        """Which partition of the job an execution does whose bid was accepted."""
        return 0 if execution.slot is None else self.job.spec.partition_of(execution.slot).index
