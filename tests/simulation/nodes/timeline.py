"""The clock of a world, the events that are scheduled in it, and a record of what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from bacalhau_p2p.model.base import JobID

Note = tuple[float, str, str, Any, Any]
"""When, who, what kind of note, an arrival or nothing, and what it is about."""


class Timeline:
    """Time passes only from one scheduled event to the next."""

    def __init__(self, start: float) -> None:
        self.start = self.now = start
        self.healed = False
        """Whether no fault strikes any more."""
        self.notes: list[Note] = []
        self.faults: Counter[str] = Counter()
        """How often each kind of fault really had a chance to do harm."""
        self.disturbed: set[JobID] = set()
        """Jobs that a fault of a node itself has struck, and of which less is expected."""
        self.repeats = 0
        """Messages that were sent again."""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Schedule an event, now at the earliest. Events at the same time keep their order."""
        self._count += 1
        heappush(self._heap, (max(when, self.now), self._count, what))

    def advance(self) -> Callable[[], None] | None:
        """Move to the next event and return it; None when nothing is scheduled."""
        if not self._heap:
            return None
        self.now, _, what = heappop(self._heap)
        return what

    @property
    def since_start(self) -> float:
        """Seconds that the world has lasted."""
        return self.now - self.start

    def note(self, who: str, what: str, arrival: Any, about: Any) -> None:
        self.notes.append((self.now, who, what, arrival, about))

    def count_fault(self, fault: str) -> None:
        self.faults[fault] += 1
