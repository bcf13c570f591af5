"""A timer whose time can be moved forward without waking the task that waits for it."""

from __future__ import annotations

from math import inf

import trio


class Alarm:
    """One task waits; others set the time."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()

    def no_later_than(self, seconds: float) -> None:
        """Ring in this many seconds, unless it rings earlier anyway."""
        rings_at = trio.current_time() + max(0.0, seconds)
        if rings_at < self._scope.deadline:
            self._scope.deadline = rings_at

    async def wait(self) -> None:
        """Returns when the alarm rings, and leaves it without a time. For one task at a time."""
        with self._scope:
            await trio.sleep_forever()
        self._scope = trio.CancelScope(deadline=inf)
