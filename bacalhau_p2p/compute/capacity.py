"""How much of the node's capacity each execution holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.resources import Resources

LEAST_CHARGE = Resources(cpu=0.01, memory=20_000_000)
"""What every execution costs a node, whatever it asks for: a container has a process that looks after it."""
_NOTHING = Resources()


class Capacity(Undoable):
    """Reservations within a limit. Each belongs to one execution of a requester."""

    def __init__(self, limit: Resources, *, least: Resources = _NOTHING, gpus: Sequence[str] = ()) -> None:
        """An execution is charged `least`, even if it asks for less. `gpus`: the ids of GPUs, if they are
        known; then each reservation has its own."""
        self.limit = limit
        self._gpus = tuple(gpus[: limit.gpu])
        self._least = least
        self._held: dict[ExecutionID, tuple[PeerID, Resources]] = UndoableDict()
        self._alike: dict[tuple[PeerID, Resources], int] = UndoableDict()
        """How many reservations each requester has of each amount: those of one job are all alike."""
        self._gpus_of: dict[ExecutionID, tuple[str, ...]] = UndoableDict()
        self._reserved = Resources()
        self.has_released = False
        """Whether room was released. For whoever looks for a use for it, and then sets it back."""

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

    def holds(self, execution_id: ExecutionID) -> bool:
        """Whether this execution has a reservation."""
        return execution_id in self._held

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
        return (self._reserved + self._charge(amount)).fits_in(self.limit)

    def delays(self, amount: Resources, other: Resources) -> bool:
        """Whether reserving `amount` takes something of which `other` needs more than would be left."""
        wanted, needed, free = self._charge(amount), self._charge(other), self.available
        return any(
            mine > 0 and theirs > 0 and mine + theirs > left + 1e-9
            for mine, theirs, left in (
                (wanted.cpu, needed.cpu, free.cpu),
                (wanted.memory, needed.memory, free.memory),
                (wanted.disk, needed.disk, free.disk),
                (wanted.gpu, needed.gpu, free.gpu),
            )
        )

    def held_by(self, requester: PeerID) -> tuple[int, Resources]:
        """The number of reservations of this requester, and their sum."""
        held = {amount: number for (holder, amount), number in self._alike.items() if holder == requester}
        return sum(held.values()), _sum(held.items())

    def gpus_of(self, execution_id: ExecutionID) -> tuple[str, ...]:
        """The ids of the GPUs that this execution has for itself."""
        return self._gpus_of.get(execution_id, ())

    def reserve(
        self, execution_id: ExecutionID, requester: PeerID, amount: Resources, *, gpus: Sequence[str] = ()
    ) -> bool:
        """Reserve `amount` for this execution, with these GPUs if it has some already. False: there is no
        room for it."""
        if execution_id in self._held:
            return True
        if not self.has_room(amount):
            return False
        held = self._held[execution_id] = requester, self._charge(amount)
        self._count(held, 1)
        if amount.gpu and self._gpus:
            self._gpus_of[execution_id] = self._choose_gpus(amount.gpu, gpus)
        return True

    def _choose_gpus(self, count: int, wanted: Sequence[str]) -> tuple[str, ...]:
        taken = {gpu for held in self._gpus_of.values() for gpu in held}
        free = [gpu for gpu in self._gpus if gpu not in taken]
        return tuple(sorted(free, key=lambda gpu: gpu not in wanted)[:count])

    def release(self, execution_id: ExecutionID) -> None:
        """Release what this execution holds, if anything."""
        self._gpus_of.pop(execution_id, None)
        held = self._held.pop(execution_id, None)
        if held is not None:
            self._count(held, -1)
            self.has_released = True

    def _charge(self, amount: Resources) -> Resources:
        """What is reserved for an amount. A node with less than the least amount can run one execution."""
        return Resources(
            cpu=max(amount.cpu, min(self._least.cpu, self.limit.cpu)),
            memory=max(amount.memory, min(self._least.memory, self.limit.memory)),
            disk=max(amount.disk, min(self._least.disk, self.limit.disk)),
            gpu=amount.gpu,
        )

    def _count(self, held: tuple[PeerID, Resources], change: int) -> None:
        number = self._alike.get(held, 0) + change
        if number:
            self._alike[held] = number
        else:
            del self._alike[held]
        # Summed anew each time: after thousands of additions and subtractions, floats do not return to zero.
        self._reserved = _sum((amount, number) for (_, amount), number in self._alike.items())


def _sum(amounts: Iterable[tuple[Resources, int]]) -> Resources:
    """So many of each amount."""
    # In plain numbers: each sum would be validated.
    cpu, memory, disk, gpu = 0.0, 0, 0, 0
    for amount, number in amounts:
        cpu += amount.cpu * number
        memory += amount.memory * number
        disk += amount.disk * number
        gpu += amount.gpu * number
    return Resources(cpu=cpu, memory=memory, disk=disk, gpu=gpu)
