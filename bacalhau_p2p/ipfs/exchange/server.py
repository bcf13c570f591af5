"""The answering side of `/bacalhau/car/1.0.0`, as `docs/content.md` specifies it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import ContentError
from bacalhau_p2p.ipfs.exchange.flat_walk import write_flat_car
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits
from bacalhau_p2p.ipfs.exchange.paced_sender import PacedSender
from bacalhau_p2p.ipfs.exchange.want_budget import WantBudget
from bacalhau_p2p.ipfs.exchange.wire import (
    HOLDS_ALL,
    HOLDS_NOTHING,
    HOLDS_ROOT,
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
from bacalhau_p2p.runtime.tasks import read_ahead
from bacalhau_p2p.runtime.threads import Threads

MAX_SEARCHES = 64
"""DAGs that are searched for missing blocks to answer one `have`; for further ones only the root is."""

_BATCH = 1024 * 1024
"""Bytes that are read from the store in one go."""
_BATCHES_AHEAD = 1


class BlockServer:
    """Answers requests for blocks from the block store."""

    def __init__(self, blocks: BlockStore, limits: ExchangeLimits, threads: Threads) -> None:
        self._blocks = blocks
        self._limits = limits
        self._threads = threads
        self._requests: Counter[PeerID] = Counter()
        self._budget = WantBudget()

    async def serve(self, peer: PeerID, stream: HalfCloseableStream) -> None:
        """Answer the request on an inbound stream.

        Raises RemoteProtocolError for a malformed request, trio.TooSlowError for an idle peer.
        """
        with self._counted(peer) as accepted:
            try:
                request = Request.decode(await read_message(stream, bytearray(), self._limits.idle))
                if not accepted:
                    await self._answer(stream, Answer(status=Status.BUSY, reason="too many requests"))
                elif request is None:
                    await self._answer(stream, Answer(status=Status.REFUSED, reason="unknown operation"))
                elif request.operation is Operation.HAVE:
                    await self._budget.wait(peer)
                    self._budget.charge(peer, len(request.wanted) or 1)
                    await self._answer(stream, await self._threads.run(self._have, request))
                else:
                    wanted = request.wanted or (request.cid,)
                    with self._blocks.holding(*wanted):
                        await self._send_blocks(stream, wanted, flat=request.flat)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the peer closed the stream, because it has what it needs or because it is gone

    @contextmanager
    def _counted(self, peer: PeerID) -> Iterator[bool]:
        """A block that counts as a request of the peer; whether the limit allows it."""
        self._requests[peer] += 1
        try:
            yield self._requests[peer] <= self._limits.requests_per_peer
        finally:
            self._requests[peer] -= 1
            if not self._requests[peer]:
                del self._requests[peer]

    def _have(self, request: Request) -> Answer:
        """Which parts are here is only said to those who ask for parts, or when some but not all are here."""
        wanted = request.wanted or (request.cid,)
        searches, holds, stored = MAX_SEARCHES, bytearray(), self._blocks.sizes(wanted)
        for cid in wanted:
            if cid not in stored:
                holds.append(HOLDS_NOTHING)
            elif cid.codec == RAW or (searches > 0 and self._blocks.has_all(cid)):
                holds.append(HOLDS_ALL)
            else:
                holds.append(HOLDS_ROOT)
            searches -= cid.codec != RAW
        status = Status.OK if set(holds) == {HOLDS_ALL} else Status.MISSING
        return Answer(status=status, holds=bytes(holds) if request.wanted or HOLDS_ROOT in holds else b"")

    async def _answer(self, stream: HalfCloseableStream, answer: Answer) -> None:
        await PacedSender(stream, self._limits.idle).send(answer.encode())
        await stream.send_eof()

    async def _send_blocks(self, stream: HalfCloseableStream, wanted: Sequence[CID], *, flat: bool) -> None:
        if not await self._threads.run(lambda: all(map(self._blocks.has, wanted))):
            await self._answer(stream, Answer(status=Status.MISSING))
            return
        sender = PacedSender(stream, self._limits.idle)
        await sender.send(Answer(status=Status.OK).encode())
        if flat:
            car = write_flat_car(wanted, self._blocks)
        else:
            car = write_car(wanted, self._blocks, self._blocks.limits)
        try:
            async with read_ahead(self._batches(car), _BATCHES_AHEAD) as batches_ahead:
                async for batch in batches_ahead:
                    await sender.send(batch)
        except ContentError:
            self._blocks.forget_complete()
            return  # without an end of stream, so that the peer sees that blocks are missing
        await stream.send_eof()

    async def _batches(self, car: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Large pieces of a CAR. Raises ContentError after the last one when a block is missing."""
        failure: list[ContentError] = []
        pieces = batches(_until_failure(car, failure), _BATCH)
        while (batch := await self._threads.run(next, pieces, None)) is not None:
            yield batch
        if failure:
            raise failure[0]


def _until_failure(items: Iterator[bytes], failure: list[ContentError]) -> Iterator[bytes]:
    """The items before the first missing block, so that they are sent all the same."""
    try:
        yield from items
    except ContentError as error:
        failure.append(error)
