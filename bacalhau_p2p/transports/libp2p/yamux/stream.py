"""A stream of our Yamux: what it received, its two windows, and who waits for them."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamReset

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.libp2p.noise import MAX_PLAINTEXT
from bacalhau_p2p.transports.libp2p.yamux_frames import (
    DATA,
    FIN,
    FIRST_WINDOW,
    HEADER_SIZE,
    RST,
    WINDOW_UPDATE,
    Frame,
    ReceiveBuffer,
)

if TYPE_CHECKING:
    from bacalhau_p2p.transports.libp2p.yamux import LeanYamux

MAX_WINDOW: Final = 4 * 1024 * 1024
"""Bytes that a peer may send us on one stream beyond what was read, once reading proved to be fast."""

FAST: Final = 0.02
"""Seconds. When half a window is read in less, or in four round trips, a larger one would help."""

MAX_BODY: Final = MAX_PLAINTEXT - HEADER_SIZE
"""Bytes of payload in one frame, which is then one Noise message; others send as much."""

WRITE_SIZE: Final = 4 * MAX_BODY
"""Bytes of one stream that go into one write, so that other streams have their turn."""


class LeanYamuxStream(IMuxedStream):  # type: ignore[misc]
    """One stream. A slow reader makes it hold at most its window: at first FIRST_WINDOW bytes."""

    def __init__(self, stream_id: int, conn: LeanYamux) -> None:
        self.stream_id = stream_id
        self.muxed_conn = conn
        self.received = ReceiveBuffer()
        self.send_window = FIRST_WINDOW
        self.window = FIRST_WINDOW
        """Bytes that may be under way or unread together."""
        self.recv_window = FIRST_WINDOW
        """Bytes that the other end may still send."""
        self.fin_sent = False
        self.fin_received = False
        self.was_reset = False
        """By either end, or with the connection."""
        self._credited_at = -1.0
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    # --- reading ------------------------------------------------------------------------------

    @property
    def readable(self) -> bool:
        """Whether there is something to read, or nothing will ever come."""
        return bool(self.received) or self.fin_received or self.was_reset

    async def wait_readable(self) -> None:
        while not self.readable:
            await self._readers.park()

    def take(self, max_bytes: int) -> bytes:
        """At most so many bytes of what was received, whose window is given back, half of it at once."""
        data = self.received.take(max_bytes)
        credit = self.window - self.recv_window - len(self.received)
        if credit >= self.window // 2 and not (self.fin_received or self.was_reset):
            credit += self._growth()
            self.recv_window += credit
            self.muxed_conn.send_frame(WINDOW_UPDATE, 0, self.stream_id, credit)
        return data

    def _growth(self) -> int:
        """By how much the window grows: it doubles while half of it is read in next to no time."""
        now = trio.current_time()
        fast = self._credited_at >= 0 and now - self._credited_at < max(FAST, 4 * self.muxed_conn.rtt())
        self._credited_at = now
        growth = min(self.window, MAX_WINDOW - self.window, self.muxed_conn.window_budget) if fast else 0
        self.window += growth
        self.muxed_conn.window_budget -= growth
        return growth

    # --- writing ------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether a write would not wait, or never succeed."""
        return self.finished_writing or (self.send_window > 0 and not self.muxed_conn.backlog)

    @property
    def finished_writing(self) -> bool:
        return self.fin_sent or self.was_reset or self.muxed_conn.broken

    async def wait_writable(self) -> None:
        while not self.writable:
            if self.muxed_conn.backlog:
                await self.muxed_conn.wait_drained()
            else:
                await self._writers.park()

    def send_now(self, data: bytes | memoryview) -> bool:
        """Send all of it if the window allows, and nothing waits for the socket; else nothing of it."""
        if not self.writable or self.finished_writing or len(data) > min(self.send_window, WRITE_SIZE):
            return False
        self.send_some(data)
        return True

    def send_some(self, data: bytes | memoryview) -> int:
        """Send as much as the window allows in one write; how many bytes that were."""
        size = min(len(data), self.send_window, WRITE_SIZE)
        view = memoryview(data)[:size]
        self.send_window -= size
        self.muxed_conn.send_data(self.stream_id, view)
        return size

    def finish(self) -> None:
        """No more will be written."""
        if not self.fin_sent and not self.was_reset:
            self.fin_sent = True
            self.muxed_conn.send_frame(WINDOW_UPDATE, FIN, self.stream_id, 0)
            self._wake()
            self.muxed_conn.forget_if_done(self)

    def abort(self) -> None:
        """Neither end will read or write any more; what was not read is dropped."""
        if not self.was_reset:
            if not (self.fin_sent and self.fin_received):
                self.muxed_conn.send_frame(WINDOW_UPDATE, RST, self.stream_id, 0)
            self.break_off()
        self.received.clear()
        self.muxed_conn.forget_if_done(self)

    # --- what the connection tells ----------------------------------------------------------------

    def accept(self, frame: Frame) -> None:
        """Data, or more window. Raises RemoteProtocolError when the data overruns our window."""
        if frame.kind == DATA:
            self.recv_window -= frame.length
            if self.recv_window < 0:
                raise RemoteProtocolError(f"stream {self.stream_id} overran its window")
            if self.fin_received:
                raise RemoteProtocolError(f"data after the end of stream {self.stream_id}")
            self.received.append(frame.payload)
            self._readers.unpark_all()
        elif frame.length:
            self.send_window += frame.length
            self._writers.unpark_all()
        if frame.flags & RST:
            self.received.clear()
            self.break_off()
        elif frame.flags & FIN:
            self.fin_received = True
            self._wake()

    def break_off(self) -> None:
        """Reset by the other end, or lost with the connection; what was received can still be read."""
        self.was_reset = True
        self._wake()

    def _wake(self) -> None:
        self._readers.unpark_all()
        self._writers.unpark_all()

    # --- as of py-libp2p, for its own protocols and its negotiation -------------------------------

    async def read(self, n: int | None = None) -> bytes:
        await self.wait_readable()
        if self.received:
            return self.take(len(self.received) if n is None or n < 0 else n)
        if self.fin_received:
            raise MuxedStreamEOF("the stream ended")
        raise MuxedStreamReset("the stream was reset or its connection was lost")

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            await self.wait_writable()
            if self.was_reset or self.muxed_conn.broken:
                raise MuxedStreamReset("the stream was reset or its connection was lost")
            if self.fin_sent:
                raise MuxedStreamClosed("the stream was closed for writing")
            view = view[self.send_some(view) :]

    async def close(self) -> None:
        self.finish()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        self.abort()
        await trio.lowlevel.checkpoint()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("yamux has no deadlines; cancel instead")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.muxed_conn.get_remote_address()

    async def __aenter__(self) -> LeanYamuxStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
