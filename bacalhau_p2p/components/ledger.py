"""What the ledgers of both machines have in common: actions, ignored events, and deadlines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from bacalhau_p2p.components.undo import Undoable, on_undo, undone_on_error
from bacalhau_p2p.model.base import UnixSeconds

A = TypeVar("A")
K = TypeVar("K")

RETRY_FAULTY_DEADLINE = 60.0
"""Seconds after which a deadline whose handling raised is handled again."""
MAX_FAULTS = 100
"""Exceptions at deadlines that wait for the driver to log them; further ones are not kept."""
SPARE_DEADLINES = 1_000
"""Deadlines that were replaced and are kept. When they outnumber the valid ones, they are dropped."""


class Ledger(Undoable, Generic[A]):
    """Shared by the parts of a machine, which change it. It makes no decisions itself."""

    def __init__(self) -> None:
        self.actions: list[A] = []
        """What to do, in order."""
        self.ignored: Counter[str] = Counter()
        """Events that changed nothing, by kind and state: `ResultProposed in Lost`."""
        self.unknown = 0
        """Events about jobs or executions that the machine does not know."""
        self.faults: list[tuple[str, Exception]] = []
        """What raised when its deadline had come: a name, and the exception."""

    def all_or_nothing(self) -> undone_on_error:
        """If the block raises, the machine is as it was before it, and the block asked for no action."""
        return undone_on_error(_shorten, self.actions, len(self.actions))

    @contextmanager
    def isolated(self, name: str) -> Iterator[None]:
        """One of several things that are due. If it raises, nothing of it is done, and the others go on."""
        try:
            with self.all_or_nothing():
                yield
        except Exception as error:  # noqa: BLE001 - the driver logs it with its traceback
            if len(self.faults) < MAX_FAULTS:
                self.faults.append((name, error))

    def take_faults(self) -> list[tuple[str, Exception]]:
        """The faults since the last call."""
        if not self.faults:
            return []
        faults, self.faults = self.faults, []
        return faults

    def take_actions(self) -> list[A]:
        """The actions asked for since the last call."""
        actions = self.actions[:]
        self.actions.clear()
        return actions

    def ignore(self, event: object, where: str) -> None:
        """Count an event that changes nothing. `where` is one of a few phrases, never a text from a peer."""
        self.ignored[f"{type(event).__name__} {where}"] += 1

    def ignore_unknown(self, event: object, what: str) -> None:
        """Count an event about a thing that the machine does not know, such as a `job`."""
        self.unknown += 1
        self.ignore(event, f"for an unknown {what}")


def _shorten(items: list[A], length: int) -> None:
    del items[length:]


class Deadlines(Generic[K]):
    """When things are due. Each has one deadline; a later call replaces it."""

    def __init__(self) -> None:
        self._due: dict[K, UnixSeconds] = {}
        self._heap: list[tuple[UnixSeconds, K]] = []

    def set(self, key: K, due: UnixSeconds) -> None:
        """Set when this thing is due."""
        before = self._due.get(key)
        if before != due:
            on_undo(self._restore, key, before)
            self._due[key] = due
            heappush(self._heap, (due, key))
            if len(self._heap) > SPARE_DEADLINES + 2 * len(self._due):
                self._heap = [(due, key) for key, due in self._due.items()]
                heapify(self._heap)

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def of(self, key: K) -> UnixSeconds | None:
        """When this thing is due."""
        return self._due.get(key)

    def drop(self, key: K) -> None:
        """This thing has no deadline any more."""
        before = self._due.pop(key, None)
        if before is not None:
            on_undo(self._restore, key, before)

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
        on_undo(self._restore, key, due)
        del self._due[key]
        return key

    def _restore(self, key: K, due: UnixSeconds | None) -> None:
        if due is None:
            self._due.pop(key, None)
        else:
            self._due[key] = due
            heappush(self._heap, (due, key))
