"""Blocks from peer to peer: `/bacalhau/car/1.0.0`, as `docs/content.md` specifies it.

A fetch asks every peer at once whether it has the DAG, and shares it out among those that do (see
`content.providers`); blocks that came and were checked are kept, and only what is missing is asked
for again. Nothing is stored that the asked DAG does not link to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import ContentError
from bacalhau_p2p.ipfs.exchange.expanding import write_flat
from bacalhau_p2p.ipfs.exchange.fetching import ExchangeLimits, OpenStream, Requests
from bacalhau_p2p.ipfs.exchange.providers import Fallback, Fetch, Finder, Sources, WebOf
from bacalhau_p2p.ipfs.exchange.wire import (
    BLOCK,
    NOTHING,
    PROTOCOL,
    WHOLE,
    Answer,
    Operation,
    Request,
    Status,
    read_message,
)
from bacalhau_p2p.ipfs.format.car import batches, write_car
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID

__all__ = ["PROTOCOL", "Exchange", "ExchangeLimits", "OpenStream"]

_SURVEYS = 64
"""DAGs that are looked through for one question; of further ones only the first block is told."""
_BATCH = 1024 * 1024
_BATCHES_AHEAD = 1
LEAST_PIECE, MOST_PIECE = 64 * 1024, 256 * 1024
"""Bytes that a peer must take within the time in which it would be idle: the more the quicker it was."""

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
                    await self._send_answer(stream, await self._thread(self._holds, request))
                else:
                    wanted = request.wanted or (request.cid,)
                    with self._blocks.holding(*wanted):
                        await self._send_blocks(stream, wanted, request.flat)
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

    def _holds(self, request: Request) -> Answer:
        """The answer to a `have`: more than whether all is here only to those who ask for parts, or when
        some of it is."""
        wanted = request.wanted or (request.cid,)
        surveys, holds = _SURVEYS, bytearray()
        for cid in wanted:
            if not cid.fetchable or not self._blocks.has(cid):
                holds.append(NOTHING)
            elif cid.codec == RAW or (surveys > 0 and self._blocks.has_all(cid)):
                holds.append(WHOLE)
            else:
                holds.append(BLOCK)
            surveys -= cid.codec != RAW
        status = Status.OK if set(holds) == {WHOLE} else Status.MISSING
        return Answer(status=status, holds=bytes(holds) if request.wanted or BLOCK in holds else b"")

    async def _answer(self, stream: HalfCloseableStream, status: Status, reason: str = "") -> None:
        await self._send_answer(stream, Answer(status=status, reason=reason))

    async def _send_answer(self, stream: HalfCloseableStream, answer: Answer) -> None:
        await Pace(self._limits.idle).send(stream, answer.encode())
        await stream.send_eof()

    async def _send_blocks(self, stream: HalfCloseableStream, wanted: Sequence[CID], flat: bool) -> None:
        if not await self._thread(lambda: all(map(self._blocks.has, wanted))):
            await self._answer(stream, Status.MISSING)
            return
        pace = Pace(self._limits.idle)
        await pace.send(stream, Answer(status=Status.OK).encode())
        blocks = (
            write_flat(wanted, self._blocks) if flat else write_car(wanted, self._blocks, self._blocks.limits)
        )
        tell, ready = trio.open_memory_channel[bytes](_BATCHES_AHEAD)
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            whole = trio.Event()
            nursery.start_soon(self._read_ahead, blocks, tell, whole)
            try:
                async for batch in ready:
                    await pace.send(stream, batch)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
                failure = error  # carried out of the nursery, which would wrap it
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if whole.is_set():  # otherwise no end of stream: the peer sees that it does not have all
            await stream.send_eof()

    async def _read_ahead(
        self, blocks: Iterator[bytes], tell: trio.MemorySendChannel[bytes], whole: trio.Event
    ) -> None:
        """Read the blocks of a stream while earlier ones are sent; sets `whole` when none was missing."""
        lacking: list[ContentError] = []
        car = batches(_until(lacking, blocks), _BATCH)
        async with tell:
            while (batch := await self._thread(next, car, None)) is not None:
                await tell.send(batch)
            if lacking:
                self._blocks.forget_complete()
            else:
                whole.set()

    # --- fetching

    async def fetch(
        self,
        cid: CID,
        providers: Sequence[PeerID],
        *,
        finder: Finder | None = None,
        web: WebOf = lambda peers: (),
        timeout: float | None = None,
    ) -> None:
        """Bring the complete DAG below `cid` into the block store; returns at once when it is there.

        `finder` is asked when none of the `providers` has it, `web` when no peer could give it. `timeout` is
        the seconds to find somebody who has it (default: `ExchangeLimits.find`).
        Raises ContentNotFound, which says how many peers were asked; InvalidContent, ContentTooLarge.
        Cancelled: what came so far is kept, and not asked for again.
        """
        cid.require_fetchable()
        lock = self._fetching.setdefault(cid.v1, trio.Lock())
        async with lock:
            with self._blocks.holding(cid):
                if (await self._thread(self._blocks.dag_stat, cid)).complete:
                    return
                find = self._limits.find if timeout is None else timeout
                sources = Sources(peers=providers, finder=finder, web=web)
                await Fetch(
                    self._blocks, self._requests, self._threads, cid, sources, find, self._fallback
                ).run()

    async def _thread(self, call: Callable[..., _T], *args: object) -> _T:
        return await trio.to_thread.run_sync(call, *args, limiter=self._threads)


class Pace:
    """Sends to one peer, piece by piece, so that one who takes it slowly is not idle. Pieces are larger for
    those who take them in less than a second: each costs a step of the scheduler."""

    def __init__(self, idle: float) -> None:
        """`idle`: seconds in which a piece must have gone."""
        self._idle = idle
        self._piece = LEAST_PIECE

    async def send(self, stream: HalfCloseableStream, data: bytes) -> None:
        """Raises trio.TooSlowError."""
        rest = memoryview(data)
        while rest:
            begun = trio.current_time()
            with trio.fail_after(self._idle):
                await stream.send_all(rest[: self._piece])
            rest = rest[self._piece :]
            quick = trio.current_time() - begun < 1.0
            self._piece = min(2 * self._piece, MOST_PIECE) if quick else LEAST_PIECE


def _until(lacking: list[ContentError], items: Iterator[bytes]) -> Iterator[bytes]:
    """Items up to where a block is missing: those before it are worth sending."""
    try:
        yield from items
    except ContentError as error:
        lacking.append(error)
