"""Peers with content, connected by streams in memory. Blocking calls run in the event loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import trio
from trio.abc import HalfCloseableStream
from trio.testing import memory_stream_pair

from bacalhau_p2p.errors import PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits, Sources
from bacalhau_p2p.ipfs.exchange.wire import PROTOCOL, Answer, Operation, Request, Status, read_message
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from tests.support.blocks.dag_makers import MemoryBlocks
from tests.support.blocks.inline_threads import InlineThreads

ALICE, BOB, CAROL, DAVE = (PeerID(name) for name in ("alice", "bob", "carol", "dave"))


class Net:
    """Peers with a store and an exchange each. Tests replace entries of `handlers` to misbehave."""

    def __init__(self, nursery: trio.Nursery, folder: Path, stack: ExitStack) -> None:
        self.nursery = nursery
        self.stores: dict[PeerID, BlockStore] = {}
        self.exchanges: dict[PeerID, Exchange] = {}
        self.handlers: dict[PeerID, Callable] = {}
        self.opened: Counter[PeerID] = Counter()
        """Streams that were opened to each peer."""
        self.faults: list[Exception] = []
        """What handlers raised because of their peer."""
        self._folder = folder
        self._stack = stack

    def peer(
        self,
        name: PeerID,
        *blocks: MemoryBlocks,
        without: Sequence[CID] = (),
        limits: ExchangeLimits = ExchangeLimits(),  # noqa: B008 - frozen
        content: Limits = Limits(),  # noqa: B008 - frozen
    ) -> BlockStore:
        """Add a peer with these blocks, except those of `without`."""
        store = self._stack.enter_context(BlockStore(self._folder / name, limits=content))
        for each in blocks:
            store.put_many((cid, block) for cid, block in each.blocks.items() if cid not in set(without))

        async def open_stream(to: PeerID, protocol: str) -> HalfCloseableStream:
            assert protocol == PROTOCOL
            return await self.open_stream(name, to)

        self.stores[name] = store
        self.exchanges[name] = Exchange(store, open_stream, limits=limits, threads=InlineThreads())
        self.handlers[name] = self.exchanges[name].serve
        return store

    async def open_stream(self, who: PeerID, to: PeerID) -> HalfCloseableStream:
        if to not in self.handlers:
            raise PeerUnreachable(f"{to} is unreachable")
        self.opened[to] += 1
        near, far = memory_stream_pair()
        self.nursery.start_soon(self.handle, to, who, far)
        return near

    async def handle(self, server: PeerID, client: PeerID, stream: HalfCloseableStream) -> None:
        """As a transport does it: the stream is closed when its handler returns."""
        try:
            await self.handlers[server](client, stream)
        except (RemoteProtocolError, trio.TooSlowError) as error:
            self.faults.append(error)
        await stream.aclose()

    async def fetch(self, who: PeerID, cid: CID, peers: Sequence[PeerID], **options) -> None:
        await self.exchanges[who].fetch(cid, Sources(peers=peers), **options)

    def count_reads(self, peer: PeerID) -> Counter[CID]:
        """How often a peer reads each block from now on, as it does to send it."""
        reads: Counter[CID] = Counter()
        store, get = self.stores[peer], self.stores[peer].get

        def counted(cid: CID) -> bytes | None:
            reads[cid.v1] += 1
            return get(cid)

        store.get = counted  # type: ignore[method-assign]
        return reads


# --- handlers


async def silent(peer: PeerID, stream: HalfCloseableStream) -> None:
    await trio.sleep_forever()


async def hangs_up(peer: PeerID, stream: HalfCloseableStream) -> None:
    await receive_request(stream)


def answering(status: Status) -> Callable:
    """Answers every request with this status."""

    async def answer(peer: PeerID, stream: HalfCloseableStream) -> None:
        await receive_request(stream)
        await stream.send_all(Answer(status=status).encode())
        await stream.send_eof()

    return answer


def lying(answer: bytes, *, sent: trio.Event | None = None) -> Callable:
    """Claims to have everything, and answers each `get` with these bytes; then `sent` is set."""

    async def handle(peer: PeerID, stream: HalfCloseableStream) -> None:
        request = await receive_request(stream)
        await stream.send_all(Answer(status=Status.OK).encode())
        if request.operation is Operation.GET:
            await stream.send_all(answer)
            if sent is not None:
                sent.set()
        await stream.send_eof()

    return handle


def trickling(every: float) -> Callable:
    """Claims to have everything, and answers each `get` with a byte now and then, without end."""

    async def handle(peer: PeerID, stream: HalfCloseableStream) -> None:
        request = await receive_request(stream)
        await stream.send_all(Answer(status=Status.OK).encode())
        with suppress(trio.BrokenResourceError):
            while request.operation is Operation.GET:
                await trio.sleep(every)
                await stream.send_all(b"\x40")
        await stream.send_eof()

    return handle


async def receive_request(stream: HalfCloseableStream) -> Request:
    request = Request.decode(await read_message(stream, bytearray(), 60))
    assert request is not None
    return request


def intercept(
    net: Net, peer: PeerID, change: Callable[[Request], Request] = lambda request: request
) -> list[Request]:
    """Let a peer serve changed requests; the original requests, as they come."""
    serve, requests = net.handlers[peer], []

    async def changed(client: PeerID, stream: HalfCloseableStream) -> None:
        requests.append(await receive_request(stream))
        await serve(client, _ReplayedStream(stream, change(requests[-1]).encode()))

    net.handlers[peer] = changed
    return requests


class _ReplayedStream:
    """A stream whose first bytes are these."""

    def __init__(self, stream: HalfCloseableStream, data: bytes) -> None:
        self._stream = stream
        self._data = data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data, self._data = self._data, b""
        return data or await self._stream.receive_some(max_bytes)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


class MeteredStream:
    """A stream that sends `rate` bytes a second, and stalls after `stall_after` bytes."""

    def __init__(self, stream: HalfCloseableStream, rate: float, stall_after: float) -> None:
        self.sent = 0
        self._stream = stream
        self._rate = rate
        self._stall_after = stall_after

    async def send_all(self, data: bytes) -> None:
        if self.sent + len(data) > self._stall_after:
            await trio.sleep_forever()
        await trio.sleep(len(data) / self._rate)
        await self._stream.send_all(data)
        self.sent += len(data)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def meter(net: Net, peer: PeerID, *, rate: float, stall_after: float = float("inf")) -> list[MeteredStream]:
    """Let a peer serve at this rate; its streams, as they come."""
    serve, streams = net.handlers[peer], []

    async def metered(client: PeerID, stream: HalfCloseableStream) -> None:
        streams.append(MeteredStream(stream, rate, stall_after))
        await serve(client, streams[-1])

    net.handlers[peer] = metered
    return streams
