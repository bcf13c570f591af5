"""How much of the node's capacity each execution holds."""

from __future__ import annotations

from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.resources import Resources


class Capacity(Undoable):
    """Reservations within a limit. Each belongs to one execution."""

    def __init__(self, limit: Resources) -> None:
        self.limit = limit
        self._held: dict[ExecutionID, Resources] = UndoableDict()
        self._reserved = Resources()

    @property
    def reserved(self) -> Resources:
        """The sum of all reservations."""
        return self._reserved

    @property
    def available(self) -> Resources:
        return self.limit - self._reserved

    @property
    def holders(self) -> frozenset[ExecutionID]:
        return frozenset(self._held)

    @property
    def load(self) -> float:
        """The reserved share of the resource that is reserved most, from 0 to 1."""
        shares = [
            reserved / limit
            for reserved, limit in (
                (self._reserved.cpu, self.limit.cpu),
                (self._reserved.memory, self.limit.memory),
                (self._reserved.disk, self.limit.disk),
                (self._reserved.gpu, self.limit.gpu),
            )
            if limit > 0
        ]
        return min(1.0, max(shares, default=0.0))

    def has_room(self, amount: Resources) -> bool:
        """Whether this amount could be reserved now."""
        return (self._reserved + amount).fits_in(self.limit)

    def reserve(self, execution_id: ExecutionID, amount: Resources) -> bool:
        """Reserve `amount` for this execution. False: there is no room for it."""
        if execution_id in self._held:
            return True
        if not self.has_room(amount):
            return False
        self._held[execution_id] = amount
        self._reserved = self._sum()
        return True

    def release(self, execution_id: ExecutionID) -> None:
        """Release what this execution holds, if anything."""
        if self._held.pop(execution_id, None) is not None:
            self._reserved = self._sum()

    def _sum(self) -> Resources:
        # Summed anew each time: after thousands of additions and subtractions, floats do not return to zero.
        total = Resources()
        for amount in self._held.values():
            total = total + amount
        return total
