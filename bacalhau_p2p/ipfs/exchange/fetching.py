"""The asking side of `/bacalhau/car/1.0.0`: requests, and taking the blocks that a peer sends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import (
    ContentError,
    InvalidContent,
    PeerUnreachable,
    RemoteProtocolError,
)
from bacalhau_p2p.ipfs.exchange.expanding import Expansion
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.wire import PROTOCOL, Answer, Operation, Request, Status, read_message
from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.traversal import Walk
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID

OpenStream = Callable[[PeerID, str], Awaitable[HalfCloseableStream]]
"""Opens a stream of a protocol to a peer, dialling it if need be. Raises PeerUnreachable."""

Receive = Callable[[], Awaitable[bytes]]

_READ = 1024 * 1024
_GULP = 1024 * 1024
_GULPS_AHEAD = 2
BUSY_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeLimits:
    """Seconds, and requests at one time."""

    find: float = 15.0
    """Until a fetch must have found a peer that has the content."""
    idle: float = 15.0
    """Without a byte, until a stream is given up. There is no limit on the whole of a transfer."""
    requests_a_peer: int = 8
    """Served to one peer at one time; a further one is told that we are busy."""
    requests_to_a_peer: int = 4
    """Made to one peer at one time, of each operation; a further one waits."""


class Requests:
    """Requests to peers, each on a stream of its own."""

    def __init__(self, open_stream: OpenStream, limits: ExchangeLimits) -> None:
        self._open_stream = open_stream
        self._limits = limits
        self._gates: WeakValueDictionary[tuple[PeerID, Operation], trio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def ask(self, peer: PeerID, request: Request) -> AsyncIterator[tuple[Answer, Receive]]:
        """The answer to a request, and a call for the bytes that follow it, b"" at the end of the stream.

        Raises PeerFault, also for what happens to the stream inside the block. Leaving the block
        early resets the stream.
        """
        key = (peer, request.operation)  # lest a question wait behind transfers, and time out
        gate = self._gates.setdefault(key, trio.Semaphore(self._limits.requests_to_a_peer))
        async with gate:
            try:
                with trio.fail_after(self._limits.idle):
                    stream = await self._open_stream(peer, PROTOCOL)
                async with stream:
                    with trio.fail_after(self._limits.idle):
                        await stream.send_all(request.encode())
                    buffer = bytearray()
                    answer = Answer.decode(await read_message(stream, buffer, self._limits.idle))
                    yield answer, lambda: self._receive(stream, buffer)
            except (PeerUnreachable, RemoteProtocolError) as error:
                raise PeerFault(str(error)) from error
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise PeerFault("the connection was lost") from error
            except trio.TooSlowError as error:
                raise PeerFault(f"it sent nothing for {self._limits.idle:g} s") from error

    async def _receive(self, stream: HalfCloseableStream, buffer: bytearray) -> bytes:
        if buffer:
            data = bytes(buffer)
            buffer.clear()
            return data
        with trio.fail_after(self._limits.idle):
            data = bytes(await stream.receive_some(_READ))
            if not data:
                await stream.send_eof()
        return data


class Transfer:
    """Taking blocks from peers: the bulk of a fetch."""

    def __init__(self, blocks: BlockStore, requests: Requests, threads: trio.CapacityLimiter) -> None:
        self._blocks = blocks
        self._requests = requests
        self._threads = threads

    async def take(
        self,
        peer: PeerID,
        cid: CID,
        wanted: tuple[CID, ...],
        walk: Walk | None = None,
        arrived: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Store the DAGs below `wanted`, which `peer` sends; they are parts of `cid`.

        `walk` through `wanted` says what is expected; where it is split meanwhile, the stream is
        left when the rest has come. `arrived` hears of bytes as they come. Raises PeerFault, ContentError.
        """
        walk = walk or Walk(list(wanted), self._blocks.limits)
        flat = isinstance(walk, Expansion)
        request = Request(operation=Operation.GET, cid=cid, wanted=wanted, flat=flat)
        for pause in BUSY_PAUSES:
            async with self._requests.ask(peer, request) as (answer, receive):
                if answer.status is Status.OK:
                    await self.store(_heard(receive, arrived), walk)
                    return
                await receive()
            if answer.status is not Status.BUSY:
                raise PeerFault(f"it answered {answer.status.value} to a request for the blocks")
            await trio.sleep(pause)
        raise PeerFault("it is busy")

    async def store(self, receive: Receive, walk: Walk) -> None:
        """Store a whole stream while more of it comes; of one that breaks, what had come."""
        incoming = _Incoming(self._blocks, walk)
        tell, gulps = trio.open_memory_channel[bytearray](_GULPS_AHEAD)
        failure: Exception | None = None
        broken: list[Exception] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_ahead, receive, tell, broken)
            try:
                async for gulp in gulps:
                    await self._thread(incoming.store, gulp)
                    if incoming.cut:
                        break
            except (PeerFault, ContentError) as error:  # carried out of the nursery, which would wrap it
                failure = error
            nursery.cancel_scope.cancel()
        if failure is None and broken and not incoming.cut:
            failure = broken[0]
        if failure is not None:
            raise failure
        incoming.finish()

    async def _thread(self, call: Callable[..., _T], *args: object) -> _T:
        return await trio.to_thread.run_sync(call, *args, limiter=self._threads)


async def _read_ahead(
    receive: Receive, tell: trio.MemorySendChannel[bytearray], broken: list[Exception]
) -> None:
    """Pass a stream on in pieces that are worth a thread; if it breaks, how is put into `broken`."""
    gulp = bytearray()
    async with tell:
        try:
            while data := await receive():
                gulp += data
                if len(gulp) >= _GULP:
                    await tell.send(gulp)
                    gulp = bytearray()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            broken.append(error)
        if gulp:
            await tell.send(gulp)


def _heard(receive: Receive, arrived: Callable[[int], None]) -> Receive:
    async def heard() -> bytes:
        data = await receive()
        arrived(len(data))
        return data

    return heard


class _Incoming:
    """A stream of blocks that is checked and stored: exactly those that the wanted DAGs link to."""

    def __init__(self, blocks: BlockStore, walk: Walk) -> None:
        self._blocks = blocks
        self._reader = CarReader()
        self._walk = walk
        self._bytes = 0

    @property
    def cut(self) -> bool:
        """Whether what still comes is for others to fetch."""
        return self._walk.was_split and self._walk.expected is None

    def store(self, data: bytearray) -> None:
        """Raises PeerFault for what the peer made up, ContentError for what the content itself is."""
        self._bytes += len(data)
        self._blocks.limits.check_transfer(self._bytes)
        try:
            sections = self._reader.feed(data)
        except InvalidContent as error:
            raise PeerFault(str(error), invalid=True) from error
        unexpected: list[CID] = []
        self._blocks.put_all_verified(self._expected(sections, unexpected))
        if unexpected:
            raise PeerFault(f"block {unexpected[0]} was not asked for, or not now", invalid=True)

    def _expected(
        self, sections: list[tuple[CID, bytes]], unexpected: list[CID]
    ) -> Iterator[tuple[CID, bytes]]:
        """Those that the walk takes, which are to be stored whatever comes behind them."""
        for cid, block in sections:
            if self.cut:
                return
            if cid.v1 != self._walk.expected:
                unexpected.append(cid)
                return
            self._walk.take(block)
            yield cid, block

    def finish(self) -> None:
        """Raises PeerFault unless all has come."""
        if self.cut:
            return
        try:
            self._reader.finish()
        except InvalidContent as error:
            raise PeerFault(str(error), invalid=True) from error
        if self._walk.expected is not None:
            raise PeerFault("it ended the stream before all blocks had come")
