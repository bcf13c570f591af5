"""Outbound bitswap streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.ipfs.exchange.bitswap.wire import PROTOCOL, Message
from bacalhau_p2p.ipfs.exchange.interface import OpenStream
from bacalhau_p2p.model.base import PeerID

_PIECE = 64 * 1024
"""Bytes that a peer must accept within the idle timeout."""
_READ_SIZE = 256 * 1024


class OutboundStream:
    """One stream to a peer; it raises trio.TooSlowError, and what the stream raises."""

    def __init__(self, stream: HalfCloseableStream, idle_timeout: float) -> None:
        self._stream = stream
        self._idle_timeout = idle_timeout

    async def send(self, message: Message) -> None:
        """Send a message unless it is empty."""
        if not (message.wants or message.blocks or message.presences):
            return
        view = memoryview(message.encode())
        for start in range(0, len(view), _PIECE):
            with trio.fail_after(self._idle_timeout):
                await self._stream.send_all(view[start : start + _PIECE])

    async def check_connected(self) -> None:
        """Raises trio.BrokenResourceError when the connection was lost."""
        await self._stream.wait_send_all_might_not_block()

    async def end(self) -> None:
        """End our direction."""
        await self._stream.send_eof()

    async def finish(self) -> None:
        """End our direction and wait for the other: a stream closed earlier is reset, and data is lost."""
        await self._stream.send_eof()
        with trio.move_on_after(self._idle_timeout):
            while await self._stream.receive_some(_READ_SIZE):
                pass


class OutboundStreams:
    """Opens streams to peers."""

    def __init__(self, open_stream: OpenStream, idle_timeout: float) -> None:
        self._open_stream = open_stream
        self._idle_timeout = idle_timeout

    @asynccontextmanager
    async def open(self, peer: PeerID) -> AsyncIterator[OutboundStream]:
        """A stream for the length of the block. Raises PeerUnreachable, trio.TooSlowError."""
        with trio.fail_after(self._idle_timeout):
            stream = await self._open_stream(peer, PROTOCOL)
        async with stream:
            yield OutboundStream(stream, self._idle_timeout)
