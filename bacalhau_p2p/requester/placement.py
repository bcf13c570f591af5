"""Which executions fill the slots of a job, and what its machine asks about them at each event.

The slots and the records of the executions are the truth. All else in `Placement` is derived from them, and
follows each change at once: so an event costs the same in a job of a thousand executions as in one of three.
Tests and the simulator derive it anew, and compare (`tests/support/machines/derived.py`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeVar

from bacalhau_p2p.components.undo import Undoable, UndoableDict, UndoableSet, on_undo
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.state import ExecutionState

K = TypeVar("K")
S = ExecutionState

ACTIVE = frozenset({S.BID_ACCEPTED, S.RESULT_PROPOSED, S.RESULT_ACCEPTED})
"""States in which an execution fills a slot and its node must stay in contact."""

SETTLED = frozenset({S.COMPLETED, S.RESULT_REJECTED})
"""States in which a slot is done."""

GONE = frozenset({S.FAILED, S.LOST})
"""States that open the slot again, unless another node publishes the same result."""

CONFIRMED = frozenset({S.RESULT_ACCEPTED, S.COMPLETED})
"""States in which the result of an execution is accepted or published."""

_WORKING = ACTIVE | SETTLED
_HAS_A_PART = _WORKING | {S.BID_RECEIVED}

MAX_ATTEMPTS = 3
"""Executions that may fill a slot, one after the other."""


@dataclass(slots=True)
class Slot(Undoable):
    """One of the places of a job. Executions fill it one after the other, until one of them settles.

    Only its `Placement` changes it.
    """

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
class Group(Undoable):
    """How many slots of a group are open, and how many have an execution in each state that matters."""

    open: int = 0
    running: int = 0
    proposed: int = 0
    confirmed: int = 0
    """Its result is accepted or published."""
    gone: int = 0


_COUNTED_AS = {
    None: "open",
    S.BID_ACCEPTED: "running",
    S.RESULT_PROPOSED: "proposed",
    S.RESULT_ACCEPTED: "confirmed",
    S.COMPLETED: "confirmed",
    S.FAILED: "gone",
    S.LOST: "gone",
}
"""As what a group counts a slot, by the state of its execution; None: it is open."""


@dataclass(slots=True)
class Placement(Undoable):
    """The slots and executions of one job. Change them by its methods only."""

    slots: list[Slot]
    group_size: int
    """Slots of a group."""
    divided: bool = False
    """A node may have several of the executions, none that does the same as another."""
    replaces: bool = True
    """Whether another execution takes the place of one that is gone; not in an ops job."""
    executions: dict[ExecutionID, Execution] = field(default_factory=UndoableDict)
    """In the order of their bids."""
    verifying: set[int] = field(default_factory=UndoableSet)
    """The groups about which the verifier has been asked, and has not answered."""

    # --- derived ----------------------------------------------------------------------------

    open: list[int] = field(default_factory=list)
    """The numbers of the open slots, in order."""
    tried: int = 0
    """Slots that an execution has filled, now or before."""
    exhausted: set[int] = field(default_factory=UndoableSet)
    """The open slots that have no attempt left."""
    seats: dict[PeerID, int] = field(default_factory=UndoableDict)
    """The slot of each node that has one of its own."""
    groups: list[Group] = field(default_factory=list)
    to_reopen: set[int] = field(default_factory=UndoableSet)
    """The groups with executions that are gone, and none that publishes the same result."""
    to_judge: set[int] = field(default_factory=UndoableSet)
    """The groups whose slots all have an execution that has ended its run, some of them with a proposal that
    is not judged, and about which the verifier is not asked yet."""
    bids: dict[ExecutionID, None] = field(default_factory=UndoableDict)
    """The bids that are neither accepted nor rejected."""
    active: dict[ExecutionID, None] = field(default_factory=UndoableDict)
    active_on: dict[PeerID, dict[ExecutionID, None]] = field(default_factory=UndoableDict)
    """The active executions of each node."""
    parts: dict[PeerID, int] = field(default_factory=UndoableDict)
    """How many of a node's executions are bids, active or settled."""
    unpaid: dict[PeerID, int] = field(default_factory=UndoableDict)
    """How many of a node's executions count for the limit of its bids: all; of a job that is divided those
    that fill, and filled, no slot."""
    working: dict[tuple[int, PeerID], int] = field(default_factory=UndoableDict)
    """Of a job that is divided: how many of a node's executions in a group are active or settled."""
    failed: dict[tuple[int, PeerID], None] = field(default_factory=UndoableDict)
    """Of a job that is divided: the nodes on which an execution of the group failed or was lost."""
    ended: bool = False
    """Nothing is asked of it any more, and nothing is derived."""

    def __post_init__(self) -> None:
        self.open = [slot.number for slot in self.slots]
        for slot in self.slots:
            if slot.group == len(self.groups):
                self.groups.append(Group())
            self.groups[slot.group].open += 1
            if slot.node is not None:
                self.seats[slot.node] = slot.number

    # --- questions --------------------------------------------------------------------------

    def slots_of(self, group: int) -> Sequence[Slot]:
        """The slots of a group."""
        return self.slots[group * self.group_size : (group + 1) * self.group_size]

    def slot_of(self, execution: Execution) -> Slot | None:
        """The slot that this execution fills."""
        slot = self.slots[execution.slot] if execution.slot is not None else None
        return slot if slot is not None and slot.execution == execution.id else None

    def records(self, names: Collection[ExecutionID]) -> list[Execution]:
        """The executions with these ids."""
        return [self.executions[name] for name in names]

    def filling(self, slots: Sequence[Slot]) -> list[Execution]:
        """The executions that fill these slots."""
        return [self.executions[slot.execution] for slot in slots if slot.execution is not None]

    def is_busy(self, node: PeerID) -> bool:
        """Whether a node can fill no slot that is open: it has a part in the job. Of a job that is divided a
        node gets several executions, but none that does the same as another."""
        if not self.divided:
            return node in self.parts
        return bool(self.open) and all((self.slots[n].group, node) in self.working for n in self.open)

    def busy_nodes(self) -> Set[PeerID]:
        """All such nodes."""
        if not self.divided:
            return self.parts.keys()
        if not self.open:
            return frozenset()
        alike = self.filling(self.slots_of(self.slots[self.open[0]].group))
        return {each.node_id for each in alike if self.is_busy(each.node_id)}

    def may_take_over(self, node: PeerID, execution: Execution) -> bool:
        """Whether a node has no part in the job or, if it is divided, in what this execution does."""
        if self.divided and execution.slot is not None:
            return (self.slots[execution.slot].group, node) not in self.working
        return node not in self.parts

    # --- changes ----------------------------------------------------------------------------

    def add(self, slot: Slot) -> None:
        """Add a slot, which is open, with a group of its own."""
        self.slots.append(slot)
        on_undo(self.slots.pop)
        self.groups.append(Group())
        on_undo(self.groups.pop)
        if slot.node is not None:
            self.seats[slot.node] = slot.number
        self._open(slot)

    def seat(self, slot: Slot, node: PeerID) -> None:
        """Keep a slot for this node alone."""
        slot.node = node
        self.seats[node] = slot.number

    def put(self, execution: Execution) -> bool:
        """Take in an execution, or the next version of its record. Returns whether its node has less of a
        part in the job than before."""
        before = self.executions.get(execution.id)
        self.executions[execution.id] = execution
        was = None if before is None else before.state
        if self.ended or was is execution.state:
            return False
        state, name, node = execution.state, execution.id, execution.node_id
        _include(self.bids, name, state is S.BID_RECEIVED)
        if (state in ACTIVE) != (was in ACTIVE):
            self._change_active(name, node, active=state in ACTIVE)
        leaves = (state in _HAS_A_PART) - (was in _HAS_A_PART)
        _count(self.parts, node, leaves)
        if before is None or self.divided:
            _count(self.unpaid, node, self._is_unpaid(execution) - self._is_unpaid(before))
        if execution.slot is None:
            return leaves < 0
        slot = self.slots[execution.slot]
        if self.divided:
            _count(self.working, (slot.group, node), (state in _WORKING) - (was in _WORKING))
            if state in GONE:
                self.failed[slot.group, node] = None
        if slot.execution == name:
            self._tally(slot.group, was, -1)
            self._tally(slot.group, state, 1)
            self._assess(slot.group)
        return leaves < 0

    def fill(self, slot: Slot, execution: Execution) -> None:
        """Let an execution fill a slot."""
        if slot.execution is not None:
            self.reopen(slot)
        slot.execution = execution.id
        at = bisect_left(self.open, slot.number)
        del self.open[at]
        on_undo(self.open.insert, at, slot.number)
        self.exhausted.discard(slot.number)
        self._tally(slot.group, None, -1)
        self._tally(slot.group, execution.state, 1)
        self._assess(slot.group)

    def reopen(self, slot: Slot) -> None:
        """Open a slot that is filled."""
        assert slot.execution is not None
        self._tally(slot.group, self.executions[slot.execution].state, -1)
        slot.execution = None
        self._open(slot)

    def count_attempt(self, slot: Slot, number: int = 1) -> None:
        """Count so many attempts of a slot more."""
        before = slot.attempts
        slot.attempts += number
        self.tried += (slot.attempts > 0) - (before > 0)
        self._note_exhausted(slot)

    def ask(self, group: int) -> None:
        """Note that the verifier is asked about a group."""
        self.verifying.add(group)
        self._assess(group)

    def answered(self, group: int) -> None:
        """Note that the verifier has answered."""
        self.verifying.discard(group)
        self._assess(group)

    def shrink(self) -> None:
        """Drop what nobody asks about any more: the job has ended."""
        self.ended = True
        self.executions = UndoableDict(
            {each.id: each.replace(proposal=None, published=None) for each in self.executions.values()}
        )
        self.groups, self.parts, self.unpaid = [], UndoableDict(), UndoableDict()
        if self.open:
            self.open, self.exhausted = [], UndoableSet()
        if self.seats:
            self.seats = UndoableDict()
        if self.divided:
            self.working, self.failed = UndoableDict(), UndoableDict()

    # --- what is derived --------------------------------------------------------------------

    def _open(self, slot: Slot) -> None:
        insort(self.open, slot.number)
        on_undo(self.open.remove, slot.number)
        self._note_exhausted(slot)
        self._tally(slot.group, None, 1)
        self._assess(slot.group)

    def _note_exhausted(self, slot: Slot) -> None:
        if slot.execution is None and slot.attempts >= MAX_ATTEMPTS:
            self.exhausted.add(slot.number)
        else:
            self.exhausted.discard(slot.number)

    def _change_active(self, name: ExecutionID, node: PeerID, *, active: bool) -> None:
        _include(self.active, name, active)
        theirs = self.active_on.get(node)
        if theirs is None:
            theirs = self.active_on[node] = UndoableDict()
        _include(theirs, name, active)
        if not theirs:
            del self.active_on[node]

    def _is_unpaid(self, execution: Execution | None) -> bool:
        if execution is None:
            return False
        return not self.divided or execution.slot is None or execution.drained

    def _tally(self, group: int, state: ExecutionState | None, change: int) -> None:
        name = _COUNTED_AS.get(state)
        if name is not None:
            counts = self.groups[group]
            setattr(counts, name, getattr(counts, name) + change)

    def _assess(self, group: int) -> None:
        """Decide anew whether slots of a group are to be opened, or its results are to be judged."""
        counts = self.groups[group]
        reopen = self.replaces and counts.gone > 0 and not counts.confirmed
        judge = counts.proposed > 0 and not (counts.open or counts.running or group in self.verifying)
        if reopen != (group in self.to_reopen):
            (self.to_reopen.add if reopen else self.to_reopen.discard)(group)
        if judge != (group in self.to_judge):
            (self.to_judge.add if judge else self.to_judge.discard)(group)


def _include(members: dict[K, None], key: K, included: bool) -> None:
    """Add or remove a key, unless it is as it should be."""
    if included != (key in members):
        if included:
            members[key] = None
        else:
            del members[key]


def _count(counts: dict[K, int], key: K, change: int) -> None:
    """Change a count. What is not there is not counted."""
    if change:
        number = counts.get(key, 0) + change
        if number:
            counts[key] = number
        else:
            del counts[key]
