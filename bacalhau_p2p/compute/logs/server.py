"""Answers requesters who read what their executions write, by the protocol of `bprotocol.log_streams`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.bprotocol.log_streams import (
    MAX_PIECE,
    MAX_REQUEST,
    FrameReader,
    LogRequest,
    decode_request,
    encode_end,
    encode_piece,
)
from bacalhau_p2p.compute.logs.files import StreamFiles
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.logs import LogStream
from bacalhau_p2p.runtime.tasks import background

POLL_INTERVAL = 0.05
"""Seconds between two looks at files that grow."""
REQUEST_TIMEOUT = 10.0
"""Seconds for the question to arrive."""
STALL_TIMEOUT = 300.0
"""Seconds in which a reader must take one piece."""
MAX_READERS_OF_ONE = 32
"""Questions of one peer that are answered at the same time."""
MAX_READERS = 128
"""The same for all peers. Each has two open files, and no more of them in memory than one piece."""


@dataclass(frozen=True, slots=True)
class LogSource:
    """Where the output of one execution is."""

    folder: Path
    is_live: Callable[[], bool]
    """Whether more may come."""


FindSource = Callable[[PeerID, ExecutionID], LogSource | None]
"""The output of an execution, if this peer is its requester and there is some."""


class LogServer:
    """Serves the streams of one compute node."""

    def __init__(self, find: FindSource) -> None:
        self._find = find
        self._readers: Counter[PeerID] = Counter()

    async def serve(self, peer: PeerID, stream: HalfCloseableStream) -> None:
        """As a `StreamHandler`. A reader that goes away, or stops reading, ends its own answer only."""
        with trio.fail_after(REQUEST_TIMEOUT):
            request = await _received(stream)
        if self._readers[peer] >= MAX_READERS_OF_ONE or self._readers.total() >= MAX_READERS:
            await _send(stream, encode_end("too many readers of logs"))
            return
        self._readers[peer] += 1
        try:
            source = self._find(peer, request.execution_id)
            if source is None:
                await _send(stream, encode_end("its output is not on this node"))
            else:
                async with background() as nursery:
                    nursery.start_soon(_until_closed, stream, nursery.cancel_scope.cancel)
                    await self._answer(peer, request, source, stream)
        finally:
            self._readers[peer] -= 1
            if not self._readers[peer]:
                del self._readers[peer]

    async def _answer(
        self, peer: PeerID, request: LogRequest, source: LogSource, stream: HalfCloseableStream
    ) -> None:
        with closing(StreamFiles(source.folder)) as files:
            begin = (0, 0) if request.tail is None else files.tail(request.tail)
            offsets = dict(zip(LogStream, map(max, begin, request.offsets), strict=True))
            await _copy(source, files, offsets, stream, follow=request.follow)
        kept = self._find(peer, request.execution_id)
        if kept is not None and kept.folder != source.folder:
            # Its output may have been moved before there was a file to open.
            with closing(StreamFiles(kept.folder)) as files:
                await _copy(kept, files, offsets, stream, follow=False)
        await _send(stream, encode_end())


async def _copy(
    source: LogSource,
    files: StreamFiles,
    offsets: dict[LogStream, int],
    stream: HalfCloseableStream,
    *,
    follow: bool,
) -> None:
    """Send what follows `offsets`, which move on, until there is nothing more to come."""
    while True:
        live = source.is_live()  # what is written before it ends is read after this
        sent = False
        for each in LogStream:
            offset, data = files.read(each, offsets[each], MAX_PIECE)
            if data:
                await _send(stream, encode_piece(each, offset, data))
                offsets[each] = offset + len(data)
                sent = True
        if not sent and not (live and follow):
            return
        if not sent:
            await trio.sleep(POLL_INTERVAL)


async def _received(stream: HalfCloseableStream) -> LogRequest:
    """Raises RemoteProtocolError."""
    frame = await FrameReader(stream, MAX_REQUEST).next()
    if frame is None:
        raise RemoteProtocolError("a stream of logs without a question")
    return decode_request(frame)


async def _until_closed(stream: HalfCloseableStream, cancel: Callable[[], None]) -> None:
    """Ends the answer when its reader goes away: a silent program would not show that."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await stream.receive_some(MAX_REQUEST):
            pass
    cancel()


async def _send(stream: HalfCloseableStream, frame: bytes) -> None:
    """Raises trio.TooSlowError."""
    with trio.fail_after(STALL_TIMEOUT):
        await stream.send_all(frame)
