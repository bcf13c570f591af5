"""The slots of a job, in groups whose executions do the same, and what follows from the states of these.

Pure, as a part of the requester's machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bacalhau_p2p.components.undo import Undoable, UndoableSet, on_undo
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.state import ExecutionState

S = ExecutionState

ACTIVE = frozenset({S.BID_ACCEPTED, S.RESULT_PROPOSED, S.RESULT_ACCEPTED})
"""States in which an execution fills a slot and its node must stay in contact."""

SETTLED = frozenset({S.COMPLETED, S.RESULT_REJECTED})
"""States in which a slot is done."""

GONE = frozenset({S.FAILED, S.LOST})
"""States that open the slot again, unless another node publishes the same result."""

CONFIRMED = frozenset({S.RESULT_ACCEPTED, S.COMPLETED})
"""States in which the result of an execution is accepted or published."""

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
    """Some slots, and how many of them are open, or have an execution in each state that matters."""

    slots: list[Slot] = field(default_factory=list)
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


class Groups(Undoable):
    """All groups of one job. Its `Placement` says when a slot or its execution has changed."""

    __slots__ = ("all", "replaces", "to_judge", "to_reopen", "verifying")

    def __init__(self, slots: Iterable[Slot], *, replaces: bool = True) -> None:
        """`slots` are open. `replaces`: another execution takes the place of one that is gone."""
        self.replaces = replaces
        self.all: list[Group] = []
        """By their numbers."""
        self.verifying: set[int] = UndoableSet()
        """Those about which the verifier has been asked, and has not answered."""
        self.to_reopen: set[int] = UndoableSet()
        """Those with executions that are gone, and none that publishes the same result."""
        self.to_judge: set[int] = UndoableSet()
        """Those whose slots all have an execution that has ended its run, some with a proposal that is not
        judged, and about which the verifier is not asked yet."""
        for slot in slots:
            self.add(slot)

    def __getitem__(self, number: int) -> Group:
        return self.all[number]

    def add(self, slot: Slot) -> None:
        """Add a slot, which is open. The groups have the numbers 0, 1, 2, ..."""
        while len(self.all) <= slot.group:
            self.all.append(Group())
            on_undo(self.all.pop)
        group = self.all[slot.group]
        group.slots.append(slot)
        on_undo(group.slots.pop)
        self.change(slot.group, {None: 1})

    def change(self, number: int, changes: dict[ExecutionState | None, int]) -> None:
        """So many slots of a group more, or less, have an execution in these states; None: are open."""
        group = self.all[number]
        for state, change in changes.items():
            name = _COUNTED_AS.get(state)
            if name is not None:
                setattr(group, name, getattr(group, name) + change)
        self._assess(number)

    def ask(self, number: int) -> None:
        """Note that the verifier is asked about a group."""
        self.verifying.add(number)
        self._assess(number)

    def answered(self, number: int) -> None:
        """Note that the verifier has answered."""
        self.verifying.discard(number)
        self._assess(number)

    def _assess(self, number: int) -> None:
        """Decide anew whether slots of a group are to be opened, or its results are to be judged."""
        group = self.all[number]
        reopen = self.replaces and group.gone > 0 and not group.confirmed
        judge = group.proposed > 0 and not (group.open or group.running or number in self.verifying)
        if reopen != (number in self.to_reopen):
            (self.to_reopen.add if reopen else self.to_reopen.discard)(number)
        if judge != (number in self.to_judge):
            (self.to_judge.add if judge else self.to_judge.discard)(number)
