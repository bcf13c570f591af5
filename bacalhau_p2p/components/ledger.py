"""What the ledgers of both machines have in common: actions, ignored events, and deadlines."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from typing import Generic, TypeVar

from bacalhau_p2p.model.base import UnixSeconds

A = TypeVar("A")
K = TypeVar("K")


class Ledger(Generic[A]):
    """Shared by the parts of a machine, which change it. It makes no decisions itself."""

    def __init__(self) -> None:
        self.actions: list[A] = []
        """What to do, in order."""
        self.ignored: Counter[str] = Counter()
        """Events that changed nothing, by kind and state: `ResultProposed in Lost`."""

    def take_actions(self) -> list[A]:
        """The actions asked for since the last call."""
        actions, self.actions = self.actions, []
        return actions

    def ignore(self, event: object, where: str) -> None:
        """Count an event that changes nothing. `where` is one of a few phrases, never a text from a peer."""
        self.ignored[f"{type(event).__name__} {where}"] += 1


class Deadlines(Generic[K]):
    """When things are due. Each has one deadline; a later call replaces it."""

    def __init__(self) -> None:
        self._due: dict[K, UnixSeconds] = {}
        self._heap: list[tuple[UnixSeconds, K]] = []

    def set(self, key: K, due: UnixSeconds) -> None:
        """Set when this thing is due."""
        if self._due.get(key) != due:
            self._due[key] = due
            heappush(self._heap, (due, key))

    def next(self) -> UnixSeconds | None:
        """The first deadline."""
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) == due:
                return due
            heappop(self._heap)
        return None

    def pop(self, now: UnixSeconds) -> K | None:
        """The next thing that is due by `now`. It has no deadline any more."""
        due = self.next()
        if due is None or due > now:
            return None
        _, key = heappop(self._heap)
        del self._due[key]
        return key
