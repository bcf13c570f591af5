"""What has arrived and waits to be handled: a lane for each source, and each in turn by what it costs.

A flood fills the lane of its source, and what others send does not wait behind it. Peers that have answered
this node have half of the time together, and all others the other half; within each half the lane goes first
that has taken the least processor time. Who is alone takes all of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Final

import trio

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.events import AutoResetEvent
from bacalhau_p2p.transports.budgets import Budgets, Source
from bacalhau_p2p.transports.interface import (
    Broadcast,
    DirectFrame,
    Incoming,
    PeerConnected,
    PeerDisconnected,
    Unfinished,
)

MAX_WAITING_BYTES: Final = 32 * 1024 * 1024
"""Bytes of all that waits. A lane may hold a quarter of what is free, or one message."""
LANE_LENGTH: Final = 1024
"""Messages that wait in one lane."""
FREE_SHARE: Final = 4
LEAST_COST: Final = 1e-6
"""Seconds that each message counts at least."""
LONGEST_RUN: Final = 0.001
"""Seconds of processor time for messages in a row, before the reader gives way to other tasks."""
MAX_LANES: Final = 4_096
"""Lanes that are remembered while nothing waits in them, since they had more than their turn."""

Arrived = Incoming | Unfinished


@dataclass(slots=True, eq=False)
class _Lane:
    """What waits of one source."""

    source: Source
    half: _Half
    items: deque[tuple[Arrived, int]] = field(default_factory=deque)
    """Each with its size in bytes."""
    size: int = 0
    served: float = 0.0
    """Processor time that it took, on the clock of its half."""
    queued: bool = False
    """Whether it is in the heap of its half, or rests."""


class _Half:
    """Lanes that share one half of the time."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, _Lane]] = []
        self.clock = 0.0
        """What the lane had taken that went last."""
        self.served = 0.0
        """Processor time that all lanes took."""


class FairQueue:
    """The lanes of one node. Pure but for the clocks of `budgets`."""

    def __init__(self, budgets: Budgets, lane_length: int = LANE_LENGTH) -> None:
        self._budgets = budgets
        self._lane_length = lane_length
        self._lanes: dict[Source, _Lane] = {}
        self._strangers, self._answered = _Half(), _Half()
        self._resting: list[_Lane] = []
        self._current: _Lane | None = None
        self._turn = 0
        self._count = 0
        self._size = 0

    def __len__(self) -> int:
        return self._count

    def has_room(self, source: Source, size: int) -> bool:
        """Whether another message of so many bytes may wait in the lane of this source."""
        lane = self._lanes.get(source)
        if lane is None or not lane.items:
            return True
        free = MAX_WAITING_BYTES - self._size
        return len(lane.items) < self._lane_length and lane.size + size <= free / FREE_SHARE

    def put(self, source: Source, item: Arrived, size: int) -> None:
        """Let a message wait in the lane of its source."""
        lane = self._lanes.get(source)
        if lane is None:
            lane = self._lanes[source] = _Lane(source, self._half_of(source))
        lane.items.append((item, size))
        self._added(lane, size)

    def put_back(self, item: Arrived) -> None:
        """Let the rest of what was taken last wait, before all others in its lane."""
        assert self._current is not None, "nothing was taken"
        if self._budgets.is_cut_off(self._current.source.peer):
            return
        self._current.items.appendleft((item, 0))
        self._added(self._current, 0)

    def take(self) -> tuple[Source, Arrived] | None:
        """The next message, or None if nothing may be handled now. Then ask again in `rests_for` seconds."""
        self._settle()
        if self._resting:
            self._wake()
        while (half := self._next_half()) is not None:
            lane = heappop(half.heap)[2]
            if not lane.items:  # they were discarded
                lane.queued = False
                continue
            if self._budgets.rests_for(lane.source) > 0:
                self._resting.append(lane)
                self._budgets.rested(lane.source)
                continue
            half.clock = max(half.clock, lane.served)
            lane.queued = False
            self._current = lane
            item, size = lane.items.popleft()
            lane.size -= size
            self._size -= size
            self._count -= 1
            return lane.source, item
        return None

    def discard(self, source: Source) -> None:
        """Drop what waits in the lane of this source, but for news of its connection."""
        if (lane := self._lanes.get(source)) is None:
            return
        kept = deque(waiting for waiting in lane.items if not _is_message(waiting[0]))
        self._count -= len(lane.items) - len(kept)
        self._size -= lane.size
        lane.items, lane.size = kept, 0

    def charge(self, seconds: float) -> None:
        """Handling the message that was taken last took so much processor time."""
        if self._current is not None:
            self.charge_source(self._current.source, seconds)

    def charge_source(self, source: Source, seconds: float) -> None:
        """So much more processor time went into a message of this source."""
        if (lane := self._lanes.get(source)) is not None:
            lane.served += seconds
            lane.half.served += seconds
        self._budgets.spend(source, seconds)

    def rests_for(self) -> float:
        """Seconds until one of the lanes that rest may go on; infinite if none rests."""
        return min((self._budgets.rests_for(lane.source) for lane in self._resting), default=inf)

    def _added(self, lane: _Lane, size: int) -> None:
        lane.size += size
        self._size += size
        self._count += 1
        if not lane.queued and lane is not self._current:
            self._queue(lane)

    def _settle(self) -> None:
        """Put the lane that was served last back in its place."""
        lane, self._current = self._current, None
        if lane is None:
            return
        lane.served += LEAST_COST
        if lane.items:
            self._queue(lane)
        elif len(self._lanes) > MAX_LANES:
            self._lanes = {lane.source: lane for lane in self._lanes.values() if lane.items}

    def _wake(self) -> None:
        """Queue the lanes again whose rest is over."""
        resting, self._resting = self._resting, []
        for lane in resting:
            if self._budgets.rests_for(lane.source) > 0:
                self._resting.append(lane)
            else:
                self._queue(lane)

    def _queue(self, lane: _Lane) -> None:
        half = self._half_of(lane.source)
        lane.served = max(lane.served, half.clock) if half is lane.half else half.clock
        lane.half = half
        lane.queued = True
        self._turn += 1
        heappush(half.heap, (lane.served, self._turn, lane))

    def _half_of(self, source: Source) -> _Half:
        answered = not source.strangers and self._budgets.has_answered(source.peer)
        return self._answered if answered else self._strangers

    def _next_half(self) -> _Half | None:
        """The half that goes next: of two in which something waits, the one that has taken less."""
        one, other = self._answered, self._strangers
        if one.heap and other.heap:
            return one if one.served <= other.served else other
        if not one.heap:
            one, other = other, one
        other.served = max(other.served, one.served)  # who was idle does not make up for it later
        return one if one.heap else None


def _is_message(item: Arrived) -> bool:
    return not isinstance(item, PeerConnected | PeerDisconnected)


class Arrivals:
    """A `FairQueue` to wait for, as `IncomingMessages`: for one reader and any number of writers."""

    def __init__(self, budgets: Budgets, lane_length: int = LANE_LENGTH) -> None:
        self._budgets = budgets
        self._queue = FairQueue(budgets, lane_length)
        self._wake = AutoResetEvent()
        self._room: dict[Source, trio.lowlevel.ParkingLot] = {}
        self._closed = False
        budgets.watch_cut_offs(self._discard)
        self._run = 0.0
        """Processor time since the reader gave way to other tasks."""

    def __len__(self) -> int:
        return len(self._queue)

    # --- for the transport --------------------------------------------------------------------

    async def put(self, item: Incoming) -> None:
        """Let something wait in the lane of its peer, once that has room."""
        source, size = self._source(item)
        await trio.lowlevel.checkpoint()
        while not self._queue.has_room(source, size):
            await self._room.setdefault(source, trio.lowlevel.ParkingLot()).park()
        if not (_is_message(item) and self._budgets.is_cut_off(source.peer)):
            self._put(source, item, size)

    def put_now(self, item: Incoming) -> bool:
        """As `put`, if that does not wait; otherwise False, and nothing was put."""
        source, size = self._source(item)
        if not self._queue.has_room(source, size):
            if isinstance(item, Broadcast):
                self._budgets.offences.note(source.peer, "lane_full", "it sends more than its turn")
            return False
        self._put(source, item, size)
        return True

    def has_room(self, source: Source, size: int) -> bool:
        """Whether a message of so many bytes may be put now."""
        return self._queue.has_room(source, size)

    def close(self) -> None:
        """Nothing more comes. What waits can still be received."""
        self._closed = True
        self._wake.set()

    # --- for the reader -----------------------------------------------------------------------

    def charge(self, seconds: float) -> None:
        """As in `IncomingMessages`."""
        self._run += seconds
        self._queue.charge(seconds)

    def charge_for(self, author: PeerID, neighbour: PeerID | None, seconds: float) -> None:
        """As in `IncomingMessages`."""
        self._queue.charge_source(self._budgets.source(author, neighbour), seconds)

    def put_back(self, rest: Unfinished) -> None:
        """As in `IncomingMessages`."""
        self._queue.put_back(rest)

    async def receive(self) -> Arrived:
        """As in `IncomingMessages`."""
        if self._run >= LONGEST_RUN:
            self._run = 0.0
            await trio.lowlevel.checkpoint()
        while (item := self._take()) is None:
            self._run = 0.0
            if self._closed:
                await trio.lowlevel.checkpoint()
                raise trio.EndOfChannel
            if (seconds := self._queue.rests_for()) == inf:
                await self._wake.wait()
            else:
                with trio.move_on_after(seconds):
                    await self._wake.wait()
        return item

    def receive_nowait(self) -> Arrived:
        """As in `IncomingMessages`."""
        if (item := self._take()) is None:
            raise trio.EndOfChannel if self._closed else trio.WouldBlock
        return item

    def _take(self) -> Arrived | None:
        taken = self._queue.take()
        if taken is None:
            return None
        self._run += LEAST_COST
        source, item = taken
        if (waiting := self._room.pop(source, None)) is not None:
            waiting.unpark_all()
        return item

    def __aiter__(self) -> Arrivals:
        return self

    async def __anext__(self) -> Arrived:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def _source(self, item: Incoming) -> tuple[Source, int]:
        """Who pays for it, and its size."""
        match item:
            case Broadcast():
                return self._budgets.source(item.author, item.neighbour), len(item.payload)
            case DirectFrame():
                return Source(item.author), len(item.payload)
            case PeerConnected(peer) | PeerDisconnected(peer):
                return Source(peer), 0

    def _discard(self, peer: PeerID) -> None:
        """A peer was cut off: drop what waits of it, and of the strangers that it brought."""
        for source in (Source(peer), Source(peer, strangers=True)):
            self._queue.discard(source)
            if (waiting := self._room.pop(source, None)) is not None:
                waiting.unpark_all()

    def _put(self, source: Source, item: Incoming, size: int) -> None:
        self._queue.put(source, item, size)
        self._wake.set()
