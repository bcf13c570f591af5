"""Distributes the missing parts of one DAG among its providers. Pure: time is an argument.

A part is a block that is linked to, with everything below it. A single provider gets all parts in one
request. With several providers, blocks with links are fetched without what is below them, and each provider
is assigned as many of the linked parts as it sends in about a second. An idle provider steals parts from the
assignment of another, those that are due last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import PeerID

ASSIGNMENT_SECONDS = 1.0
"""How long one assignment should take when there are several providers."""
MIN_ASSIGNMENT_SIZE, MAX_ASSIGNMENT_SIZE = 1024 * 1024, 64 * 1024 * 1024
"""Bytes of such an assignment, whatever the speed of the provider."""
STEAL_DELAY = 0.05
"""Seconds until parts of a new assignment may be stolen: most content has arrived by then."""
STALL_TIMEOUT = 1.0
"""Seconds without progress after which an assignment may be duplicated (the endgame)."""
LEAST_PROGRESS = 64 * 1024
"""Bytes that are progress: who sends fewer in STALL_TIMEOUT has stalled. A liar may send a byte now and then
to keep others from being asked."""

_INITIAL_RAW_SIZE, _INITIAL_NODE_SIZE = 256 * 1024, 8 * 1024 * 1024


class Work(Protocol):
    """What is left of an assignment. May be asked while another thread stores blocks."""

    def rest(self) -> list[CID]:
        """The parts that would complete the assignment, in the order in which they are due."""
        ...

    def split(self, keep: int) -> list[CID]:
        """Keep only the next `keep` parts, and return the others."""
        ...


_W = TypeVar("_W", bound=Work)


@dataclass(eq=False, slots=True, kw_only=True)
class Assignment(Generic[_W]):
    """Parts that one provider was asked for."""

    peer: PeerID
    wanted: tuple[CID, ...]
    work: _W
    started: float
    progressed: float
    """When LEAST_PROGRESS bytes had arrived last."""
    bytes: int = 0
    unsplit: bool = True
    """Whether no part of it was stolen."""
    counted: int = 0
    """Bytes of which it is noted when they arrived."""
    duplicates: set[Assignment[_W]] = field(default_factory=set)
    """Assignments of the same parts in the endgame, this one included."""
    cancel: Callable[[], None] = lambda: None
    """Ends the transfer, because another provider was faster."""

    def add_bytes(self, size: int, now: float) -> None:
        self.bytes += size
        if self.bytes - self.counted >= LEAST_PROGRESS:
            self.counted, self.progressed = self.bytes, now

    def stalls(self, now: float, after: float = STALL_TIMEOUT) -> bool:
        """Whether it has made no progress for so many seconds."""
        return now - self.progressed >= after


class Scheduler(Generic[_W]):
    """The unassigned parts of a DAG, and the current assignments."""

    def __init__(self, wanted: Iterable[CID]) -> None:
        self._unassigned = dict.fromkeys(cid.v1 for cid in wanted)
        self._known = set(self._unassigned)
        self._reservations = 0
        self._assignments: dict[Assignment[_W], None] = {}
        self._rates: dict[PeerID, float] = {}
        self._raw_size = float(_INITIAL_RAW_SIZE)
        self._node_size = float(_INITIAL_NODE_SIZE)
        self.needs_rescan = False
        """Whether parts failed in the endgame; only the block store knows which of them are missing."""

    @property
    def unassigned(self) -> list[CID]:
        return list(self._unassigned)

    @property
    def finished(self) -> bool:
        return not self._unassigned and not self.busy

    @property
    def busy(self) -> bool:
        """Whether a part is assigned or reserved."""
        return bool(self._assignments) or self._reservations > 0

    def __len__(self) -> int:
        """The number of parts there ever were."""
        return len(self._known)

    def add(self, found: Iterable[CID]) -> None:
        """Add parts, each only once."""
        for cid in found:
            if cid not in self._known:
                self._known.add(cid)
                self._unassigned[cid] = None

    # --- assigning

    def next_parts(self, peer: PeerID, offered: Iterable[CID], limit: int, *, alone: bool) -> tuple[CID, ...]:
        """As many of the `offered` parts as this provider should be asked for next."""
        room = float("inf") if alone else self._assignment_size(peer)
        chosen: list[CID] = []
        for cid in offered:
            if len(chosen) == limit or (chosen and room <= 0):
                break
            chosen.append(cid)
            room -= self._estimated_size(cid)
        return tuple(chosen)

    @contextmanager
    def reserving(self, wanted: Iterable[CID]) -> Iterator[None]:
        """A block in which no other provider gets these parts, while the block store is asked for them."""
        for cid in wanted:
            self._unassigned.pop(cid, None)
        self._reservations += 1
        try:
            yield
        finally:
            self._reservations -= 1

    def assign(self, peer: PeerID, wanted: tuple[CID, ...], work: _W, now: float) -> Assignment[_W]:
        """Assign these parts to a provider."""
        for cid in wanted:
            self._unassigned.pop(cid, None)
        assignment = Assignment(peer=peer, wanted=wanted, work=work, started=now, progressed=now)
        self._assignments[assignment] = None
        return assignment

    def steal(self, thief: PeerID, now: float) -> bool:
        """Make the parts unassigned that are due last in the assignment of another provider.

        Returns whether there were any worth it.
        """
        best, spare, keep = None, 0.0, 1
        for assignment in self._assignments:
            if assignment.peer == thief or assignment.duplicates or now - assignment.started < STEAL_DELAY:
                continue
            rest = assignment.work.rest()
            size = self._spare_bytes(assignment, rest, now)
            if size > spare:
                best, spare, keep = assignment, size, self._parts_to_keep(assignment, rest, now)
        if best is None:
            return False
        stolen = best.work.split(keep)
        self._unassigned.update(dict.fromkeys(stolen))
        best.unsplit &= not stolen
        return bool(stolen)

    def stalled(self, thief: PeerID, now: float) -> Assignment[_W] | None:
        """An assignment of another provider that makes no progress, and neither do enough of its
        duplicates."""
        return next((each for each in self._assignments if self.may_duplicate(thief, each, now)), None)

    def may_duplicate(self, thief: PeerID, assignment: Assignment[_W], now: float) -> bool:
        """Whether to ask this provider, too, for the parts of an assignment: most that were asked for them
        send nothing. So the number of those that are asked doubles until one sends them."""
        twins = [twin for twin in assignment.duplicates or (assignment,) if twin in self._assignments]
        stalled = sum(twin.stalls(now) for twin in twins)
        return stalled > len(twins) / 2 and all(twin.peer != thief for twin in twins)

    def stalled_peers(self, now: float) -> set[PeerID]:
        """Providers that send nothing of what they were asked for."""
        return {each.peer for each in self._assignments if each.stalls(now)}

    def duplicate(
        self, peer: PeerID, original: Assignment[_W], wanted: tuple[CID, ...], work: _W, now: float
    ) -> Assignment[_W]:
        """Assign the rest of an assignment to another provider as well; the fastest one wins."""
        twin = self.assign(peer, wanted, work, now)
        original.duplicates = original.duplicates or {original}
        original.duplicates.add(twin)
        twin.duplicates = original.duplicates
        return twin

    def _spare_bytes(self, assignment: Assignment[_W], rest: list[CID], now: float) -> float:
        """Bytes that could be stolen from an assignment, 0 when that is not worth it."""
        spare = sum(map(self._estimated_size, rest[self._parts_to_keep(assignment, rest, now) :]))
        if assignment.stalls(now, STALL_TIMEOUT / 2):
            return spare
        return spare if spare > self._speed(assignment, now) * ASSIGNMENT_SECONDS / 2 else 0.0

    def _parts_to_keep(self, assignment: Assignment[_W], rest: list[CID], now: float) -> int:
        """How many of its next parts a provider should keep when others are stolen."""
        stalling = assignment.stalls(now, STALL_TIMEOUT / 2)
        room = 0.0 if stalling else self._speed(assignment, now) * ASSIGNMENT_SECONDS / 4
        keep = 0
        for cid in rest:
            keep += 1
            room -= self._estimated_size(cid)
            if room <= 0:
                break
        return max(keep, 1)

    def _speed(self, assignment: Assignment[_W], now: float) -> float:
        return max(assignment.bytes / max(now - assignment.started, STEAL_DELAY), 1.0)

    def _assignment_size(self, peer: PeerID) -> float:
        expected = self._rates.get(peer, MIN_ASSIGNMENT_SIZE) * ASSIGNMENT_SECONDS
        return min(max(expected, MIN_ASSIGNMENT_SIZE), MAX_ASSIGNMENT_SIZE)

    def _estimated_size(self, cid: CID) -> float:
        """Bytes of a missing block with everything below it."""
        return self._raw_size if cid.codec == RAW else self._node_size

    # --- ending

    def completed(self, assignment: Assignment[_W], now: float) -> None:
        """All parts of an assignment have arrived."""
        self._assignments.pop(assignment, None)
        for twin in assignment.duplicates - {assignment}:
            self._assignments.pop(twin, None)
            twin.cancel()
        if now > assignment.started:
            self._rates[assignment.peer] = assignment.bytes / max(now - assignment.started, 0.001)
        if assignment.unsplit:
            self._update_estimates(assignment)

    def failed(self, assignment: Assignment[_W]) -> None:
        """An assignment ended before all its parts had arrived; the rest becomes unassigned."""
        if assignment not in self._assignments:
            return  # its duplicate was faster
        del self._assignments[assignment]
        duplicates = assignment.duplicates - {assignment}
        if not duplicates:
            self._unassigned.update(dict.fromkeys(assignment.work.rest()))
        elif not any(twin in self._assignments for twin in duplicates):
            self.needs_rescan = True

    def _update_estimates(self, assignment: Assignment[_W]) -> None:
        """Learn from the size of a completed assignment."""
        nodes = sum(cid.codec != RAW for cid in assignment.wanted)
        if nodes:
            below = max(assignment.bytes - (len(assignment.wanted) - nodes) * self._raw_size, 1.0)
            self._node_size = (self._node_size + below / nodes) / 2
        elif assignment.wanted:
            self._raw_size = (self._raw_size + assignment.bytes / len(assignment.wanted)) / 2
