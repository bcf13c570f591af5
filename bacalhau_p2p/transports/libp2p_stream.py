"""A libp2p stream as a trio `HalfCloseableStream`: honest about resets, safe to cancel, patient.

py-libp2p 0.8.1 cannot be used directly (docs/transport.md has the story of each point):
a reset may look like an end of file; a cancelled read or write may leave half a frame on the wire,
which ruins the whole connection; a writer that waits 5 seconds for its reader is reset; every read
sends a window update. So this reads and writes yamux's buffers and frames itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.stream_muxer.yamux.yamux import TYPE_DATA, YAMUX_HEADER_FORMAT
from trio.abc import HalfCloseableStream

READ_SIZE: Final = 65536
"""Bytes taken at once at most."""

CREDIT: Final = 65536
"""Bytes read before their window is given back: a quarter of yamux's smallest window."""

FRAME_SIZE: Final = 64 * 1024 - 12
"""Bytes of payload in one yamux frame as py-libp2p cuts them; one write of ours is one frame."""

WINDOW_POLL: Final = 0.005
"""Seconds between two looks at a send window that is used up; the muxer has no event for it."""

LINGER: Final = 10.0
"""Seconds that a stream ended by us waits for the other end before it is reset."""


class Libp2pStream(HalfCloseableStream):
    """One stream over a yamux connection. `aclose` without `send_eof` resets it."""

    def __init__(self, net_stream: Any) -> None:
        self._net_stream = net_stream
        self._muxed = net_stream.muxed_stream
        self._conn = net_stream.muxed_conn
        self._closed = False
        self._sent_eof = False
        self._got_eof = False
        self._uncredited = 0
        self._busy: set[str] = set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._exclusively("send"):
            if self._closed or self._sent_eof:
                raise trio.ClosedResourceError("this stream was closed for sending")
            await trio.lowlevel.checkpoint()
            view = memoryview(data)
            while view:
                window = await self._wait_for_window()
                piece = bytes(view[: min(FRAME_SIZE, window)])
                self._muxed.send_window -= len(piece)
                header = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_DATA, 0, self._muxed.stream_id, len(piece))
                # Cancelled within a frame, the connection would be ruined for everybody on it.
                with trio.CancelScope(shield=True), _translated():
                    await self._conn._write_frame(header + piece)
                view = view[len(piece) :]
            self._check_alive()

    async def wait_send_all_might_not_block(self) -> None:
        with self._exclusively("send"):
            if self._closed or self._sent_eof:
                raise trio.ClosedResourceError("this stream was closed for sending")
            await trio.lowlevel.checkpoint()
            await self._wait_for_window()

    async def send_eof(self) -> None:
        with self._exclusively("send"):
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            await trio.lowlevel.checkpoint()
            if self._sent_eof:
                return
            self._check_alive()
            self._sent_eof = True
            with trio.CancelScope(shield=True), _translated():
                await self._muxed.close()  # yamux: FIN, which closes our direction only
            self._check_connected()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._exclusively("receive"):
            if self._closed or self._got_eof or self._readable():
                await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            if self._got_eof:
                return b""
            await self._wait_readable()
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            buffer = self._conn.stream_buffers.get(self._muxed.stream_id)
            if not buffer:
                return self._at_end()
            data = bytes(buffer[: min(max_bytes or READ_SIZE, READ_SIZE)])
            del buffer[: len(data)]
            await self._give_credit(len(data))
            return data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            with (
                trio.CancelScope(shield=True, deadline=trio.current_time() + LINGER),
                suppress(trio.BrokenResourceError),
                _translated(),
            ):
                if self._sent_eof and self._muxed.recv_closed:
                    await self._net_stream.close()
                else:
                    await self._net_stream.reset()
        await trio.lowlevel.checkpoint()

    async def drain(self) -> None:
        """Wait at most LINGER seconds for the other end to end the stream, dropping what it sends.

        A reset straight after our EOF could destroy, in other implementations, what is still under way.
        """
        with trio.move_on_after(LINGER):
            while await self.receive_some():
                pass

    async def _wait_for_window(self) -> int:
        while self._muxed.send_window <= 0:
            self._check_alive()
            await trio.sleep(WINDOW_POLL)
        self._check_alive()
        return int(self._muxed.send_window)

    def _readable(self) -> bool:
        conn, muxed, stream_id = self._conn, self._muxed, self._muxed.stream_id
        return bool(
            conn.stream_buffers.get(stream_id)
            or muxed.recv_closed
            or muxed.closed
            or muxed.reset_received
            or conn.event_shutting_down.is_set()
            or stream_id not in conn.streams
        )

    async def _wait_readable(self) -> None:
        conn, stream_id = self._conn, self._muxed.stream_id
        while not self._readable():
            changed = conn.stream_events[stream_id]
            await changed.wait()
            if conn.stream_events.get(stream_id) is changed:
                conn.stream_events[stream_id] = trio.Event()

    async def _give_credit(self, size: int) -> None:
        self._uncredited += size
        if self._uncredited < CREDIT and not self._muxed.closed:
            return
        with trio.CancelScope(shield=True):  # the data is taken already, and a frame must be whole
            if self._muxed.closed:  # the other end is done too; let yamux forget what is read to its end
                await self._conn._finalize_stream(self._muxed, fully_closed=True)
            elif self._uncredited >= CREDIT and not self._muxed.recv_closed:
                credit, self._uncredited = self._uncredited, 0
                # A lost connection shows when there is nothing left to read.
                with suppress(trio.BrokenResourceError), _translated():
                    await self._muxed._auto_tune_and_send_window_update(bytes_read=credit)

    def _at_end(self) -> bytes:
        """What an empty buffer means: the other end's FIN, or else a reset or a lost connection.

        A lost connection sets the mark of a FIN as well, and a reset removes the stream without one.
        """
        if self._muxed.recv_closed and not self._conn.event_shutting_down.is_set():
            self._got_eof = True
            return b""
        raise trio.BrokenResourceError("the stream was reset or its connection was lost")

    def _check_alive(self) -> None:
        self._check_connected()
        if self._muxed.closed or self._muxed.send_closed or self._muxed.reset_received:
            raise trio.BrokenResourceError("the stream was reset")

    def _check_connected(self) -> None:
        # A write into a socket that was closed here returns as if all were well.
        if self._conn.event_shutting_down.is_set():
            raise trio.BrokenResourceError("the connection was lost")

    @contextmanager
    def _exclusively(self, what: str) -> Iterator[None]:
        if what in self._busy:
            raise trio.BusyResourceError(f"another task uses this stream to {what}")
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.discard(what)


@contextmanager
def _translated() -> Iterator[None]:
    """What py-libp2p raises, as trio's streams raise it."""
    try:
        yield
    except (BaseLibp2pError, OSError) as fault:
        raise trio.BrokenResourceError(f"the stream broke: {fault or type(fault).__name__}") from fault
