"""Messages on their way to one peer, each delivered when it is due."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.interface import Incoming

MAX_IN_FLIGHT: Final = 64
"""Messages on their way from one peer to another before `send` waits."""


class DeliveryQueue:
    """Delivers messages to one peer: those of each source in order, except those that are `overtaken`."""

    def __init__(self, deliver: Callable[[PeerID, Incoming], Awaitable[None]]) -> None:
        self._deliver = deliver
        self._messages: list[tuple[float, int, PeerID, Incoming]] = []  # a heap by due time
        self._sequence = itertools.count()
        self._last_due: dict[PeerID, float] = {}
        self._in_flight: Counter[PeerID] = Counter()
        self._added = trio.lowlevel.ParkingLot()
        self._delivered = trio.lowlevel.ParkingLot()
        self._closed = False

    def put(self, source: PeerID, message: Incoming, delay: float, *, overtaken: bool = False) -> None:
        """Deliver `message` in `delay` seconds."""
        due = trio.current_time() + delay
        if not overtaken:
            due = self._last_due[source] = max(due, self._last_due.get(source, 0.0))
        heapq.heappush(self._messages, (due, next(self._sequence), source, message))
        self._in_flight[source] += 1
        self._added.unpark_all()

    async def wait_for_space(self, source: PeerID) -> None:
        """Wait until fewer than MAX_IN_FLIGHT messages of this source are on their way.

        Raises PeerUnreachable when the queue is closed.
        """
        while not self._closed and self._in_flight[source] >= MAX_IN_FLIGHT:
            await self._delivered.park()
        if self._closed:
            raise PeerUnreachable("the peer disconnected")

    def has_space(self, source: PeerID, messages: int) -> bool:
        """Whether so many more messages of this source may be on their way."""
        return not self._closed and self._in_flight[source] + messages <= MAX_IN_FLIGHT

    async def run(self) -> None:
        """Deliver messages until cancelled."""
        while True:
            if not self._messages:
                await self._added.park()
            elif self._messages[0][0] > trio.current_time():
                with trio.move_on_at(self._messages[0][0]):
                    await self._added.park()
            else:
                _, _, source, message = heapq.heappop(self._messages)
                await self._deliver(source, message)
                self._in_flight[source] -= 1
                self._delivered.unpark_all()
                await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Deliver nothing more; tasks that wait for space get PeerUnreachable."""
        self._closed = True
        self._delivered.unpark_all()
