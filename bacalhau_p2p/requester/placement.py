"""Which executions fill the slots of a job, and what its machine asks about them at each event.

The slots and the records of the executions are the truth. All else is derived from them, and follows each
change at once: in `Placement`, in its `groups` and in its `nodes`. So an event costs the same in a job of a
thousand executions as in one of three. Tests and the simulator derive it anew, and compare
(`tests/support/machines/derived.py`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field

from bacalhau_p2p.components.undo import Undoable, UndoableDict, UndoableSet, on_undo
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester.groups import ACTIVE, MAX_ATTEMPTS, Groups, Slot
from bacalhau_p2p.requester.node_parts import NodeParts, include

_NO_GROUPS, _NO_PARTS = Groups(()), NodeParts(divided=False)
"""Those of each job that has ended, which nobody changes."""


@dataclass(slots=True)
class Placement(Undoable):
    """The slots and executions of one job. Change them by its methods only."""

    slots: list[Slot]
    """By their numbers. In the beginning all are open."""
    groups: Groups
    """Of the same slots."""
    nodes: NodeParts
    divided: bool = False
    """A node may have several of the executions, none that does the same as another."""
    executions: dict[ExecutionID, Execution] = field(default_factory=UndoableDict)
    """In the order of their bids."""
    open: list[int] = field(default_factory=list)
    """The numbers of the open slots, in order."""
    tried: int = 0
    """Slots that an execution has filled, now or before."""
    exhausted: set[int] = field(default_factory=UndoableSet)
    """The open slots that have no attempt left."""
    seats: dict[PeerID, int] = field(default_factory=UndoableDict)
    """The slot of each node that has one of its own."""
    bids: dict[ExecutionID, None] = field(default_factory=UndoableDict)
    """The bids that are neither accepted nor rejected."""
    active: dict[ExecutionID, None] = field(default_factory=UndoableDict)
    ended: bool = False
    """Nothing is asked of it any more, and nothing is derived."""

    @classmethod
    def of(cls, slots: list[Slot], *, divided: bool = False, replaces: bool = True) -> Placement:
        """A job's, which has no execution yet. `replaces`: another execution takes the place of one that is
        gone; not in an ops job."""
        placement = cls(slots, Groups(slots, replaces=replaces), NodeParts(divided=divided), divided)
        placement.open = [slot.number for slot in slots]
        for slot in slots:
            if slot.node is not None:
                placement.seats[slot.node] = slot.number
        return placement

    # --- questions --------------------------------------------------------------------------

    def slots_of(self, group: int) -> Sequence[Slot]:
        """The slots of a group."""
        return self.groups[group].slots

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
            return node in self.nodes.parts
        return bool(self.open) and all((self.slots[n].group, node) in self.nodes.working for n in self.open)

    def busy_nodes(self) -> Set[PeerID]:
        """All such nodes."""
        if not self.divided:
            return self.nodes.parts.keys()
        if not self.open:
            return frozenset()
        alike = self.filling(self.slots_of(self.slots[self.open[0]].group))
        return {each.node_id for each in alike if self.is_busy(each.node_id)}

    def may_take_over(self, node: PeerID, execution: Execution) -> bool:
        """Whether a node has no part in the job or, if it is divided, in what this execution does."""
        if self.divided and execution.slot is not None:
            return (self.slots[execution.slot].group, node) not in self.nodes.working
        return node not in self.nodes.parts

    # --- changes ----------------------------------------------------------------------------

    def add(self, slot: Slot) -> None:
        """Add a slot, which is open, with a group of its own."""
        self.slots.append(slot)
        on_undo(self.slots.pop)
        self.groups.add(slot)
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
        name, state = execution.id, execution.state
        before = self.executions.get(name)
        self.executions[name] = execution
        was = None if before is None else before.state
        if self.ended or was is state:
            return False
        include(self.bids, name, state is ExecutionState.BID_RECEIVED)
        include(self.active, name, state in ACTIVE)
        slot = None if execution.slot is None else self.slots[execution.slot]
        if slot is not None and slot.execution == name:
            self.groups.change(slot.group, {was: -1, state: 1})
        return self.nodes.change(before, execution, None if slot is None else slot.group)

    def fill(self, slot: Slot, execution: Execution) -> None:
        """Let an execution fill a slot."""
        if slot.execution is not None:
            self.reopen(slot)
        slot.execution = execution.id
        at = bisect_left(self.open, slot.number)
        del self.open[at]
        on_undo(self.open.insert, at, slot.number)
        self.exhausted.discard(slot.number)
        self.groups.change(slot.group, {None: -1, execution.state: 1})

    def reopen(self, slot: Slot) -> None:
        """Open a slot that is filled."""
        assert slot.execution is not None
        state = self.executions[slot.execution].state
        slot.execution = None
        self._open(slot)
        self.groups.change(slot.group, {state: -1, None: 1})

    def count_attempt(self, slot: Slot, number: int = 1) -> None:
        """Count so many attempts of a slot more."""
        before = slot.attempts
        slot.attempts += number
        self.tried += (slot.attempts > 0) - (before > 0)
        self._note_exhausted(slot)

    def end(self) -> list[Execution]:
        """The job has ended: from now on nothing is derived. Returns its bids and its active executions."""
        left = self.records([*self.bids, *self.active])
        self.bids, self.active, self.ended = UndoableDict(), UndoableDict(), True
        return left

    def shrink(self) -> None:
        """Drop what nobody asks about any more, once it has ended."""
        self.executions = UndoableDict(
            {each.id: each.replace(proposal=None, published=None) for each in self.executions.values()}
        )
        self.groups, self.nodes = _NO_GROUPS, _NO_PARTS
        if self.open:
            self.open, self.exhausted = [], UndoableSet()
        if self.seats:
            self.seats = UndoableDict()

    def _open(self, slot: Slot) -> None:
        insort(self.open, slot.number)
        on_undo(self.open.remove, slot.number)
        self._note_exhausted(slot)

    def _note_exhausted(self, slot: Slot) -> None:
        if slot.execution is None and slot.attempts >= MAX_ATTEMPTS:
            self.exhausted.add(slot.number)
        else:
            self.exhausted.discard(slot.number)
