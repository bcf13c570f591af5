"""One Yamux stream: what it received, its two windows, and the tasks that wait for them."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Protocol

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamReset

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.libp2p.yamux.frames import DATA, FIN, FIRST_WINDOW, RST, WINDOW_UPDATE, Frame
from bacalhau_p2p.transports.libp2p.yamux.receive_buffer import ReceiveBuffer
from bacalhau_p2p.transports.libp2p.yamux.writer import MAX_BODY, FrameWriter

MAX_WINDOW: Final = 4 * 1024 * 1024
"""Bytes that a peer may send on one stream beyond what was read, once its reader has proved to be fast."""

FAST: Final = 0.02
"""Seconds. A reader that takes half a window in less, or in less than four round trips, gets a larger one."""

WRITE_SIZE: Final = 4 * MAX_BODY
"""Bytes of one stream in one write, so that other streams have their turn."""


class StreamConnection(Protocol):
    """What a stream uses of its connection."""

    writer: FrameWriter
    window_budget: int
    """Bytes by which the windows of all streams together may still grow."""

    @property
    def round_trip(self) -> float:
        """Seconds of the last ping, or 0."""
        ...

    def forget_if_done(self, stream: YamuxStream) -> None: ...

    def get_remote_address(self) -> tuple[str, int] | None: ...


class YamuxStream(IMuxedStream):  # type: ignore[misc]
    """One stream. A slow reader makes it hold at most its window: at first FIRST_WINDOW bytes."""

    def __init__(self, stream_id: int, conn: StreamConnection) -> None:
        self.stream_id = stream_id
        self.muxed_conn = conn
        self.received = ReceiveBuffer()
        self.send_window = FIRST_WINDOW
        self.window = FIRST_WINDOW
        """Maximum bytes in flight and unread together."""
        self.recv_window = FIRST_WINDOW
        """Bytes that the peer may still send."""
        self.fin_sent = False
        self.fin_received = False
        self.was_reset = False
        """By either side, or because the connection was lost."""
        self._writer = conn.writer
        self._credited_at = -1.0
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    # --- reading ------------------------------------------------------------------------------

    @property
    def readable(self) -> bool:
        """Whether a read does not wait: there are bytes, or no more will come."""
        return bool(self.received) or self.fin_received or self.was_reset

    async def wait_readable(self) -> None:
        """Wait until `readable`."""
        while not self.readable:
            await self._readers.park()

    def take(self, max_bytes: int) -> bytes:
        """At most so many received bytes. Once half of the window is free, the peer gets it back."""
        data = self.received.take(max_bytes)
        credit = self.window - self.recv_window - len(self.received)
        if credit >= self.window // 2 and not (self.fin_received or self.was_reset):
            credit += self._growth()
            self.recv_window += credit
            self._writer.send_frame(WINDOW_UPDATE, 0, self.stream_id, credit)
        return data

    def _growth(self) -> int:
        """The bytes by which the window grows: it doubles while its reader is fast."""
        conn = self.muxed_conn
        now = trio.current_time()
        fast = self._credited_at >= 0 and now - self._credited_at < max(FAST, 4 * conn.round_trip)
        self._credited_at = now
        growth = min(self.window, MAX_WINDOW - self.window, conn.window_budget) if fast else 0
        self.window += growth
        conn.window_budget -= growth
        return growth

    # --- writing ------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether a write does not wait: there is room, or no write can succeed any more."""
        return self.finished_writing or (self.send_window > 0 and not self._writer.backlog)

    @property
    def finished_writing(self) -> bool:
        """Whether no write can succeed any more."""
        return self.fin_sent or self.was_reset or self._writer.broken

    async def wait_writable(self) -> None:
        """Wait until `writable`."""
        while not self.writable:
            if self._writer.backlog:
                await self._writer.wait_drained()
            else:
                await self._writers.park()

    def send_now(self, data: bytes | memoryview) -> bool:
        """Send everything if neither window nor socket makes it wait; otherwise send nothing."""
        if not self.writable or self.finished_writing or len(data) > min(self.send_window, WRITE_SIZE):
            return False
        self.send_some(data)
        return True

    def send_some(self, data: bytes | memoryview) -> int:
        """Send as much as the window allows in one write; returns the number of bytes."""
        size = min(len(data), self.send_window, WRITE_SIZE)
        view = memoryview(data)[:size]
        self.send_window -= size
        self._writer.send_data(self.stream_id, view)
        return size

    def finish(self) -> None:
        """End the sending direction."""
        if not self.fin_sent and not self.was_reset:
            self.fin_sent = True
            self._writer.send_frame(WINDOW_UPDATE, FIN, self.stream_id, 0)
            self._wake()
            self.muxed_conn.forget_if_done(self)

    def abort(self) -> None:
        """Reset both directions and drop unread bytes."""
        if not self.was_reset:
            if not (self.fin_sent and self.fin_received):
                self._writer.send_frame(WINDOW_UPDATE, RST, self.stream_id, 0)
            self.break_off()
        self.received.clear()
        self.muxed_conn.forget_if_done(self)

    # --- called by the connection -----------------------------------------------------------------

    def accept(self, frame: Frame) -> None:
        """Take data or more window. Raises RemoteProtocolError when the data exceeds the window."""
        if frame.kind == DATA:
            self.recv_window -= frame.length
            if self.recv_window < 0:
                raise RemoteProtocolError(f"stream {self.stream_id} exceeded its window")
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
        """The peer reset the stream, or the connection was lost. Unread bytes can still be read."""
        self.was_reset = True
        self._wake()

    def _wake(self) -> None:
        self._readers.unpark_all()
        self._writers.unpark_all()

    # --- py-libp2p's interface, for its own protocols and its negotiation -------------------------

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
            if self.was_reset or self._writer.broken:
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
        raise NotImplementedError("yamux streams have no deadlines; use trio's cancel scopes")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.muxed_conn.get_remote_address()

    async def __aenter__(self) -> YamuxStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
