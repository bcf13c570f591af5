"""Events that can be used again and again; a `trio.Event` is set once."""

from __future__ import annotations

import trio


class BroadcastEvent:
    """Wakes everybody who waits at this moment. Who begins to wait later waits for the next time."""

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()

    def fire(self) -> None:
        """Wake all who wait now. May be called outside of tasks of trio, but in its thread."""
        self._waiting.unpark_all()

    async def wait(self) -> None:
        """Returns at the next `fire`."""
        await self._waiting.park()


class AutoResetEvent:
    """Wakes the one task that waits, now or at its next wait; then it is unset again."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Set more than once before the task waits, it wakes the task once."""
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        """Returns once it is set, and unsets it. Cancelled: it stays as it is."""
        await self._event.wait()
        self._event = trio.Event()
