"""Pings on a Yamux connection: whether the peer is alive, and how far away it is."""

from __future__ import annotations

from math import inf

import trio

from bacalhau_p2p.transports.libp2p.yamux.frames import ACK, PING, SYN, Frame
from bacalhau_p2p.transports.libp2p.yamux.writer import FrameWriter


class Pings:
    """Pings in both directions. Every read of the connection must call `received`."""

    def __init__(self, writer: FrameWriter) -> None:
        self._writer = writer
        self._id = 0
        self._sent_at = 0.0
        self.received_at = -inf
        """When anything arrived last."""
        self._answered = trio.lowlevel.ParkingLot()
        self.round_trip = 0.0
        """Seconds that the last ping took; 0 before the first."""

    async def ping(self, timeout: float) -> bool:
        """Whether the peer sends anything within so many seconds.

        Anything counts, since on a slow line the answer may wait behind much data.
        """
        if self._writer.closed:
            return False
        self._id = (self._id + 1) % 2**32
        self._sent_at = trio.current_time()
        self._writer.send_frame(PING, SYN, 0, self._id)
        for _ in range(2):  # this process may have been suspended meanwhile, with the answer unread
            with trio.move_on_after(timeout / 2):
                await self._answered.park()
            if self.received_at >= self._sent_at or self._writer.closed:
                break
        return self.received_at >= self._sent_at and not self._writer.closed

    def received(self) -> None:
        """Bytes arrived."""
        self.received_at = trio.current_time()

    def handle(self, frame: Frame) -> None:
        """A ping to answer, or the answer to one."""
        if frame.flags & SYN:
            self._writer.send_frame(PING, ACK, 0, frame.length)
        elif frame.length == self._id:
            self.round_trip = trio.current_time() - self._sent_at
            self._answered.unpark_all()

    def close(self) -> None:
        """The connection is closed: a ping that waits for its answer ends."""
        self._answered.unpark_all()
