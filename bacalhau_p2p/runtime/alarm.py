"""A timer whose time can be moved forward without waking the task that waits for it."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import trio


class Alarm:
    """One task waits; others set the time, on `clock`, which runs like trio's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due = inf
        self._scope = trio.CancelScope()

    def no_later_than(self, due: float) -> None:
        """Ring when the clock shows this time, unless it rings earlier anyway."""
        if due < self._due:
            self._due = due
            self._scope.deadline = trio.current_time() + max(0.0, due - self._clock())

    async def wait(self) -> None:
        """Returns when the alarm rings, and leaves it without a time. For one task at a time."""
        with self._scope:
            await trio.sleep_forever()
        self._due = inf
        self._scope = trio.CancelScope()
