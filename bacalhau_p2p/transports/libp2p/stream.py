"""A libp2p stream as a trio `HalfCloseableStream`.

py-libp2p 0.8.1's streams cannot be used directly: a reset may look like an end of file; a cancelled read or
write may leave half a frame on the wire, which ruins the whole connection; a writer that waits 5 seconds for
its reader is reset; every read sends a window update. docs/transport.md explains each. This stream uses our
own Yamux.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import trio
from libp2p.exceptions import BaseLibp2pError
from trio.abc import HalfCloseableStream

from bacalhau_p2p.transports.exclusive_use import ExclusiveUse
from bacalhau_p2p.transports.libp2p.yamux.stream import YamuxStream

READ_SIZE: Final = 1024 * 1024
"""Maximum bytes of one read."""

LINGER: Final = 10.0
"""Seconds that a stream which this side ended waits for the other side before it is reset."""


class Libp2pStream(HalfCloseableStream):
    """A stream over a Yamux connection. `aclose` without `send_eof` resets it."""

    def __init__(self, net_stream: Any) -> None:
        self._net_stream = net_stream
        self._muxed: YamuxStream = net_stream.muxed_stream
        self._closed = False
        self._sending = ExclusiveUse("send")
        self._receiving = ExclusiveUse("receive")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._sending:
            self._check_open_for_sending()
            await trio.lowlevel.checkpoint()
            view = memoryview(data)
            while view:
                await self._wait_writable()
                view = view[self._muxed.send_some(view) :]
                if view:
                    await trio.lowlevel.checkpoint()
            self._check_alive()

    def send_now(self, data: bytes) -> bool:
        """As `send_all`, if that does not wait; otherwise False, and nothing was sent."""
        with self._sending:
            self._check_open_for_sending()
            self._check_alive()
            return self._muxed.send_now(data)

    async def wait_send_all_might_not_block(self) -> None:
        with self._sending:
            self._check_open_for_sending()
            await trio.lowlevel.checkpoint()
            await self._wait_writable()

    async def send_eof(self) -> None:
        with self._sending:
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            await trio.lowlevel.checkpoint()
            if self._muxed.fin_sent:
                return
            self._check_alive()
            self._muxed.finish()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            if self._closed or self._muxed.readable:
                await trio.lowlevel.checkpoint()
            if not self._closed:
                await self._muxed.wait_readable()
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            if self._muxed.received:
                return self._muxed.take(min(max_bytes or READ_SIZE, READ_SIZE))
            if self._muxed.fin_received:
                return b""
            raise trio.BrokenResourceError("the stream was reset or its connection was lost")

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            with (
                trio.CancelScope(shield=True, deadline=trio.current_time() + LINGER),
                suppress(BaseLibp2pError, OSError),
            ):
                if self._muxed.fin_sent and self._muxed.fin_received:
                    await self._net_stream.close()
                else:
                    await self._net_stream.reset()
        await trio.lowlevel.checkpoint()

    async def drain(self) -> None:
        """Wait up to LINGER seconds for the other side to end the stream, and drop what it sends.

        In other implementations, a reset right after our EOF could destroy what is still in flight.
        """
        with trio.move_on_after(LINGER):
            while await self.receive_some():
                pass

    async def _wait_writable(self) -> None:
        await self._muxed.wait_writable()
        self._check_open_for_sending()
        self._check_alive()

    def _check_open_for_sending(self) -> None:
        if self._closed or self._muxed.fin_sent:
            raise trio.ClosedResourceError("this stream was closed for sending")

    def _check_alive(self) -> None:
        if self._muxed.was_reset or self._muxed.muxed_conn.writer.broken:
            raise trio.BrokenResourceError("the stream was reset or its connection was lost")
