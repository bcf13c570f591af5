"""Where the output of executions is reached: on other nodes, on this one, and in the block store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.compute.logs.files import MAX_TAIL_BYTES
from bacalhau_p2p.compute.logs.server import LogServer
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.interface import Transport
from bacalhau_p2p.transports.memory.streams import MemoryStream, memory_stream_pair


class LogAccess:
    """For the `LogReader` of one node."""

    def __init__(
        self, transport: Transport, content: Content, server: LogServer | None, *, content_timeout: float
    ) -> None:
        """`server` has the output of this node's own executions."""
        self._transport = transport
        self._content = content
        self._server = server
        self._content_timeout = content_timeout
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """From now on this node can ask itself: no node can dial itself."""
        self._nursery = nursery

    async def open_stream(self, peer: PeerID, protocol: str) -> HalfCloseableStream:
        """A stream of the protocol for logs. Raises PeerUnreachable."""
        if peer != self._transport.peer_id or self._server is None or self._nursery is None:
            return await self._transport.open_stream(peer, protocol)
        ours, theirs = memory_stream_pair(lambda: 0.0, lambda: 0.0)
        self._nursery.start_soon(_serve, self._server, peer, theirs)
        return ours

    async def read_file(
        self, cid: str, hints: Sequence[PeerID], start: int, tail: int | None
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """A file by its CID, from `start` or, if that is later, its last `tail` lines: pieces with their
        offsets. Raises ContentError."""
        root = CID.parse(cid)
        with self._content.holding(root):
            await self._content.fetch(root, hints=hints, timeout=self._content_timeout)
            if tail is not None:
                start = max(start, await self._begin_of_tail(root, tail))
            async for chunk in self._content.reader.file(root, start):
                yield start, chunk
                start += len(chunk)

    async def _begin_of_tail(self, root: CID, lines: int) -> int:
        size = await self._content.size(root)
        begin = max(0, size - MAX_TAIL_BYTES) if lines else size
        end = b"".join([chunk async for chunk in self._content.reader.file(root, begin)])
        rest = end.splitlines(keepends=True)
        return size - sum(map(len, rest[-lines:])) if lines else size


_OVER = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, RemoteProtocolError)
"""The reader has gone away, or asked nothing that makes sense."""


async def _serve(server: LogServer, peer: PeerID, stream: MemoryStream) -> None:
    async with stream:
        with suppress(
            trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, RemoteProtocolError
        ):
            await server.serve(peer, stream)
            await stream.send_eof()
            while await stream.receive_some():
                pass
