"""Byte streams between two peers of an in-memory network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.transports.exclusive_use import ExclusiveUse

WINDOW: Final = 256 * 1024
"""Bytes that may wait in one direction before the writer waits, as in Yamux's first window."""

Transit = Callable[[], float | None]
"""Seconds that bytes written now take to arrive, or None while the link is cut."""


class _Pipe:
    """One direction of a stream."""

    def __init__(self, transit: Transit) -> None:
        self._transit = transit
        self._chunks: deque[tuple[float, bytes]] = deque()  # when it can be read, and what
        self._waiting_bytes = 0
        self._eof_at: float | None = None
        self._last_due = 0.0
        self._changed = trio.lowlevel.ParkingLot()
        self.broken = False
        self.reader_closed = False

    def link_changed(self) -> None:
        """Readers and writers that wait check again whether they can go on."""
        self._changed.unpark_all()

    def break_(self) -> None:
        self.broken = True
        self._chunks.clear()
        self._changed.unpark_all()

    def close_reader(self) -> None:
        self.reader_closed = True
        self._chunks.clear()
        self._changed.unpark_all()

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        await trio.lowlevel.checkpoint()
        while view:
            self.check_writable()
            if self._waiting_bytes >= WINDOW:
                await self._changed.park()
                continue
            piece = bytes(view[: WINDOW - self._waiting_bytes])
            view = view[len(piece) :]
            self._waiting_bytes += len(piece)
            self._chunks.append((self._due(), piece))
            self._changed.unpark_all()
        self.check_writable()

    def write_eof(self) -> None:
        if self._eof_at is None and not self.broken:
            self._eof_at = self._due()
            self._changed.unpark_all()

    @property
    def ended(self) -> bool:
        return self._eof_at is not None

    async def read(self, limit: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.reader_closed:
                raise trio.ClosedResourceError("this stream was closed")
            if self.broken:
                raise trio.BrokenResourceError("the stream was reset or its connection was lost")
            due = self._chunks[0][0] if self._chunks else self._eof_at
            if due is None or self._transit() is None:
                await self._changed.park()
            elif due > trio.current_time():
                with trio.move_on_at(due):
                    await self._changed.park()
            else:
                return self._take(limit) if self._chunks else b""

    def _take(self, limit: int) -> bytes:
        due, piece = self._chunks.popleft()
        if len(piece) > limit:
            self._chunks.appendleft((due, piece[limit:]))
            piece = piece[:limit]
        self._waiting_bytes -= len(piece)
        self._changed.unpark_all()
        return piece

    def _due(self) -> float:
        # While the link is cut, data waits until it heals or the connection is lost.
        self._last_due = max(self._last_due, trio.current_time() + (self._transit() or 0.0))
        return self._last_due

    def check_writable(self) -> None:
        if self.broken or self.reader_closed:
            raise trio.BrokenResourceError("the stream was reset or its connection was lost")


class MemoryStream(HalfCloseableStream):
    """One end of a stream. `aclose` without `send_eof` resets it, as the transport interface says."""

    def __init__(self, outbound: _Pipe, inbound: _Pipe) -> None:
        self._outbound = outbound
        self._inbound = inbound
        self._closed = False
        self._sending = ExclusiveUse("send")
        self._receiving = ExclusiveUse("receive")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._sending:
            self._check_sendable()
            await self._outbound.write(data)

    async def wait_send_all_might_not_block(self) -> None:
        with self._sending:
            self._check_sendable()
            await trio.lowlevel.checkpoint()
            self._outbound.check_writable()

    async def send_eof(self) -> None:
        with self._sending:
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            await trio.lowlevel.checkpoint()
            if self._outbound.broken:
                raise trio.BrokenResourceError("the stream was reset or its connection was lost")
            self._outbound.write_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            return await self._inbound.read(max_bytes or WINDOW)

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """As `aclose`, without a checkpoint."""
        if self._closed:
            return
        self._closed = True
        if not self._outbound.ended:
            self._outbound.break_()
        self._inbound.close_reader()

    @property
    def closed(self) -> bool:
        return self._closed

    def break_(self) -> None:
        """The connection is lost at both ends."""
        self._outbound.break_()
        self._inbound.break_()

    def link_changed(self) -> None:
        """The link was cut or healed: tasks that wait check again."""
        self._outbound.link_changed()
        self._inbound.link_changed()

    def _check_sendable(self) -> None:
        if self._closed or self._outbound.ended:
            raise trio.ClosedResourceError("this stream was closed for sending")


def memory_stream_pair(forth: Transit, back: Transit) -> tuple[MemoryStream, MemoryStream]:
    """Both ends of one stream. `forth` and `back` give the transit times of its two directions."""
    there, here = _Pipe(forth), _Pipe(back)
    return MemoryStream(there, here), MemoryStream(here, there)
