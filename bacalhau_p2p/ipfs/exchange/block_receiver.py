"""Receives the blocks of a DAG as a CAR, checks them and stores them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import trio

from bacalhau_p2p.errors import InvalidContent
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.flat_walk import FlatWalk
from bacalhau_p2p.ipfs.exchange.interface import OnBytes, Receive
from bacalhau_p2p.ipfs.exchange.requests import BUSY_RETRY_DELAYS, Requests
from bacalhau_p2p.ipfs.exchange.wire import Operation, Request, Status
from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.traversal import Walk
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.tasks import read_ahead
from bacalhau_p2p.runtime.threads import Threads

_CHUNK = 1024 * 1024
"""Bytes that are checked and stored in one go: enough to be worth a thread."""
_CHUNKS_AHEAD = 2


class BlockReceiver:
    """Stores the blocks that peers and gateways send."""

    def __init__(self, blocks: BlockStore, requests: Requests, threads: Threads) -> None:
        self._blocks = blocks
        self._requests = requests
        self._threads = threads

    async def fetch(
        self, peer: PeerID, cid: CID, wanted: tuple[CID, ...], walk: Walk, on_bytes: OnBytes
    ) -> None:
        """Get the DAGs below `wanted`, which are parts of `cid`, from a peer that speaks our protocol.

        `walk` goes through `wanted`. When it is split in the meantime, the stream is closed once the rest has
        arrived. Raises PeerFault, ContentError.
        """
        request = Request(operation=Operation.GET, cid=cid, wanted=wanted, flat=isinstance(walk, FlatWalk))
        for delay in BUSY_RETRY_DELAYS:
            async with self._requests.ask(peer, request) as (answer, receive):
                if answer.status is Status.OK:
                    await self.store(receive, walk, on_bytes)
                    return
                await receive()
            if answer.status is not Status.BUSY:
                raise PeerFault(f"answered {answer.status.value!r} to a request for blocks")
            await trio.sleep(delay)
        raise PeerFault("busy")

    async def store(self, receive: Receive, walk: Walk, on_bytes: OnBytes = lambda size: None) -> None:
        """Store a CAR while more of it arrives; when the stream breaks, what had arrived is stored.

        Raises PeerFault, ContentError, and what `receive` raises.
        """
        incoming = _IncomingCar(self._blocks, walk)
        async with read_ahead(_chunks(receive, on_bytes), _CHUNKS_AHEAD) as chunks:
            async for chunk in chunks:
                await self._threads.run(incoming.store, chunk)
                if incoming.complete_early:
                    return
        incoming.finish()


async def _chunks(receive: Receive, on_bytes: OnBytes) -> AsyncGenerator[bytearray, None]:
    """The bytes of a stream in chunks; what arrived before a failure is given first."""
    chunk = bytearray()
    failure: Exception | None = None
    try:
        while data := await receive():
            on_bytes(len(data))
            chunk += data
            if len(chunk) >= _CHUNK:
                yield chunk
                chunk = bytearray()
    except (PeerFault, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
        failure = error
    if chunk:
        yield chunk
    if failure is not None:
        raise failure


class _IncomingCar:
    """A CAR of exactly the blocks that a walk expects."""

    def __init__(self, blocks: BlockStore, walk: Walk) -> None:
        self._blocks = blocks
        self._reader = CarReader()
        self._walk = walk
        self._bytes = 0

    @property
    def complete_early(self) -> bool:
        """Whether the walk was split, and others fetch what is still to come."""
        return self._walk.was_split and self._walk.expected is None

    def store(self, data: bytearray) -> None:
        """Raises PeerFault for what the peer made up, ContentError for what is wrong in the content."""
        self._bytes += len(data)
        self._blocks.limits.check_transfer(self._bytes)
        try:
            sections = self._reader.feed(data)
        except InvalidContent as error:
            raise PeerFault(str(error), invalid=True) from error
        unexpected: list[CID] = []
        self._blocks.put_all_verified(self._expected(sections, unexpected))
        if unexpected:
            raise PeerFault(f"unexpected block {unexpected[0]}", invalid=True)

    def _expected(
        self, sections: list[tuple[CID, bytes]], unexpected: list[CID]
    ) -> Iterator[tuple[CID, bytes]]:
        """The blocks up to the first unexpected one; they are stored whatever comes after them."""
        for cid, block in sections:
            if self.complete_early:
                return
            if cid.v1 != self._walk.expected:
                unexpected.append(cid)
                return
            self._walk.take(block)
            yield cid, block

    def finish(self) -> None:
        """Raises PeerFault unless all blocks have arrived."""
        if self.complete_early:
            return
        try:
            self._reader.finish()
        except InvalidContent as error:
            raise PeerFault(str(error), invalid=True) from error
        if self._walk.expected is not None:
            raise PeerFault("the stream ended before all blocks arrived")
