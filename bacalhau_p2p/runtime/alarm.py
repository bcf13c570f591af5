"""A wake-up call whose time can be moved without waking who waits for it."""

from __future__ import annotations

from math import inf

import trio


class Alarm:
    """For one task that waits, and others that know of something earlier to wait for."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()

    def no_later_than(self, seconds: float) -> None:
        """Ring in so many seconds from now, unless it rings before that."""
        rings_at = trio.current_time() + max(0.0, seconds)
        if rings_at < self._scope.deadline:
            self._scope.deadline = rings_at

    async def rings(self) -> None:
        """Returns when it rings; it is set to no time then. For one task at a time."""
        with self._scope:
            await trio.sleep_forever()
        self._scope = trio.CancelScope(deadline=inf)
