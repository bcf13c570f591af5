"""Blocks from peer to peer: `/bacalhau/car/1.0.0`, as `docs/content.md` specifies it.

A fetch asks every provider at once whether it has the DAG, takes it from the first that does, and
goes on with the next where one fails; blocks that came and were checked are kept, and only what is
missing is asked for again. Nothing is stored that the asked DAG does not link to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.content.blockstore import BlockStore
from bacalhau_p2p.content.car import write_car
from bacalhau_p2p.content.cid import CID
from bacalhau_p2p.content.fetching import ExchangeLimits, OpenStream, Requests
from bacalhau_p2p.content.providers import Fallback, Fetch
from bacalhau_p2p.content.wire import PROTOCOL, Answer, Operation, Request, Status, read_message
from bacalhau_p2p.errors import ContentError
from bacalhau_p2p.model.base import PeerID

__all__ = ["PROTOCOL", "Exchange", "ExchangeLimits", "OpenStream"]

_BATCH = 512 * 1024
_BATCHES_AHEAD = 1
_PIECE = 64 * 1024

_T = TypeVar("_T")


class Exchange:
    """The exchange of one node: `serve` answers peers, `fetch` asks them."""

    def __init__(
        self,
        blocks: BlockStore,
        open_stream: OpenStream,
        *,
        limits: ExchangeLimits = ExchangeLimits(),  # noqa: B008 - frozen
        threads: trio.CapacityLimiter | None = None,
        fallback: Fallback | None = None,
    ) -> None:
        """`threads` bounds the threads that read and write blocks, lest they take those of others;
        `fallback` is for peers that do not speak this protocol."""
        self._fallback = fallback
        self._blocks = blocks
        self._requests = Requests(open_stream, limits)
        self._limits = limits
        self._threads = threads or trio.CapacityLimiter(4)
        self._serving: Counter[PeerID] = Counter()
        self._fetching: WeakValueDictionary[CID, trio.Lock] = WeakValueDictionary()

    # --- serving

    async def serve(self, peer: PeerID, stream: HalfCloseableStream) -> None:
        """Answer the one request on an inbound stream.

        Raises RemoteProtocolError for what is no request, trio.TooSlowError for a peer that is idle.
        """
        with self._serving_slot(peer) as free:
            try:
                request = Request.decode(await read_message(stream, bytearray(), self._limits.idle))
                if not free:
                    await self._answer(stream, Status.BUSY, "too many requests at one time")
                elif request is None:
                    await self._answer(stream, Status.REFUSED, "the operation is not known")
                elif request.operation is Operation.HAVE:
                    has = request.cid.fetchable and await self._thread(self._blocks.has_all, request.cid)
                    await self._answer(stream, Status.OK if has else Status.MISSING)
                else:
                    wanted = request.wanted or (request.cid,)
                    with self._blocks.holding(*wanted):
                        await self._send_blocks(stream, wanted)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the peer has what it needs, or is gone

    @contextmanager
    def _serving_slot(self, peer: PeerID) -> Iterator[bool]:
        self._serving[peer] += 1
        try:
            yield self._serving[peer] <= self._limits.requests_a_peer
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]

    async def _answer(self, stream: HalfCloseableStream, status: Status, reason: str = "") -> None:
        await self._send(stream, Answer(status=status, reason=reason).encode())
        await stream.send_eof()

    async def _send_blocks(self, stream: HalfCloseableStream, wanted: Sequence[CID]) -> None:
        if not await self._thread(lambda: all(map(self._blocks.has, wanted))):
            await self._answer(stream, Status.MISSING)
            return
        await self._send(stream, Answer(status=Status.OK).encode())
        tell, ready = trio.open_memory_channel[bytes](_BATCHES_AHEAD)
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            whole = trio.Event()
            nursery.start_soon(self._read_ahead, wanted, tell, whole)
            try:
                async for batch in ready:
                    await self._send(stream, batch)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
                failure = error  # carried out of the nursery, which would wrap it
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if whole.is_set():  # otherwise no end of stream: the peer sees that it does not have all
            await stream.send_eof()

    async def _read_ahead(
        self, wanted: Sequence[CID], tell: trio.MemorySendChannel[bytes], whole: trio.Event
    ) -> None:
        """Read the blocks of a stream while earlier ones are sent; sets `whole` when none was missing."""
        car = batches(write_car(wanted, self._blocks, self._blocks.limits), _BATCH)
        async with tell:
            try:
                while (batch := await self._thread(next, car, None)) is not None:
                    await tell.send(batch)
            except ContentError:
                self._blocks.forget_complete()
                return
            whole.set()

    async def _send(self, stream: HalfCloseableStream, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            with trio.fail_after(self._limits.idle):
                await stream.send_all(view[start : start + _PIECE])

    # --- fetching

    async def fetch(self, cid: CID, providers: Sequence[PeerID], *, timeout: float | None = None) -> None:
        """Bring the complete DAG below `cid` into the block store; returns at once when it is there.

        `timeout` is the seconds to find somebody who has it (default: `ExchangeLimits.find`).
        Raises ContentNotFound, which says how many peers were asked; InvalidContent, ContentTooLarge.
        Cancelled: what came so far is kept, and not asked for again.
        """
        cid.require_fetchable()
        lock = self._fetching.setdefault(cid.v1, trio.Lock())
        async with lock:
            with self._blocks.holding(cid):
                if (await self._thread(self._blocks.survey, cid)).complete:
                    return
                find = self._limits.find if timeout is None else timeout
                await Fetch(
                    self._blocks, self._requests, self._threads, cid, providers, find, self._fallback
                ).run()

    async def _thread(self, call: Callable[..., _T], *args: object) -> _T:
        return await trio.to_thread.run_sync(call, *args, limiter=self._threads)


def batches(items: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Join small pieces into ones of `size` bytes or a little more; the last may be smaller."""
    batch: list[bytes] = []
    length = 0
    for item in items:
        batch.append(item)
        length += len(item)
        if length >= size:
            yield b"".join(batch)
            batch, length = [], 0
    if batch:
        yield b"".join(batch)
