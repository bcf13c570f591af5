"""Bitswap, so that kubo, helia and whoever else speaks it can fetch from us, and we from them.

Each side has a stream of its own to the other: what a peer wants comes in on its stream, and our
answers go out on ours. Nothing is stored that we did not ask this very peer for, answers to one peer
wait in a queue of bounded length, and want lists are not remembered: what is not here is said to
be missing, at once, to those who ask to be told.
"""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

import trio
from trio.abc import HalfCloseableStream, ReceiveStream

from bacalhau_p2p.errors import PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.ipfs.exchange.bitswap_wire import PROTOCOL, Message, Want, take_message
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.fetching import ExchangeLimits, OpenStream
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.traversal import ROOT, Depth, links_of
from bacalhau_p2p.ipfs.format.unixfs import decode
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID

__all__ = ["PROTOCOL", "Bitswap"]

MAX_WAITING = 4096
"""Wants of one peer that wait for their answer; further ones hold its stream back."""

LOOK_EVERY = 1.0
"""Seconds between two looks at whether a peer that says nothing is still connected."""

_IN_FLIGHT = 64
"""Blocks that one fetch has asked for and not yet got."""
_ANSWER = 1024 * 1024
"""Bytes of blocks in one message, the last block excepted."""
_PIECE = 64 * 1024
_READ = 256 * 1024
_STREAMS_A_PEER = 16
"""Read at one time; others wait. kubo sends each answer on a stream of its own, eight at one time, and
while we still deal with those that it has ended it opens as many more as we asked for blocks."""

_T = TypeVar("_T")

_Heard = tuple[CID, bytes | None]
"""A block, or with None the news that the peer does not have it; b"" for "has it" of a mere question."""


class Bitswap:
    """Bitswap of one node: `serve` hears peers, `has` and `fetch` ask one."""

    def __init__(
        self,
        blocks: BlockStore,
        open_stream: OpenStream,
        *,
        limits: ExchangeLimits = ExchangeLimits(),  # noqa: B008 - frozen
        threads: trio.CapacityLimiter | None = None,
    ) -> None:
        self._blocks = blocks
        self._open_stream = open_stream
        self._limits = limits
        self._threads = threads or trio.CapacityLimiter(2)
        self._turns: WeakValueDictionary[PeerID, trio.Semaphore] = WeakValueDictionary()
        self._asked: dict[PeerID, dict[CID, list[trio.MemorySendChannel[_Heard]]]] = {}

    # --- hearing peers

    async def serve(self, peer: PeerID, stream: HalfCloseableStream) -> None:
        """Hear what a peer says on its stream until it ends. Raises RemoteProtocolError."""
        turns = self._turns.get(peer)
        if turns is None:
            turns = self._turns[peer] = trio.Semaphore(_STREAMS_A_PEER)
        tell, wants = trio.open_memory_channel[Want](MAX_WAITING)
        failure: RemoteProtocolError | None = None
        async with turns, trio.open_nursery() as nursery:
            nursery.start_soon(self._answer, peer, wants)
            async with tell:
                try:
                    await self._hear(peer, stream, tell)
                except RemoteProtocolError as error:  # carried out of the nursery, which would wrap it
                    failure = error
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _hear(self, peer: PeerID, stream: ReceiveStream, tell: trio.MemorySendChannel[Want]) -> None:
        buffer = bytearray()
        while data := await stream.receive_some(_READ):
            buffer += data
            while (body := take_message(buffer)) is not None:
                message = await self._thread(Message.decode, body)
                for cid, block in message.blocks:
                    self._deliver(peer, cid, block)
                for cid, has in message.presences:
                    self._deliver(peer, cid.v1, b"" if has else None)
                for want in message.wants:
                    if not want.cancel:
                        await tell.send(want)

    def _deliver(self, peer: PeerID, cid: CID, block: bytes | None) -> None:
        """To whoever asked this peer for it, once; what nobody asked for is dropped."""
        for tell in self._asked.get(peer, {}).pop(cid, ()):
            tell.send_nowait((cid, block))

    async def _answer(self, peer: PeerID, wants: trio.MemoryReceiveChannel[Want]) -> None:
        """Send what a peer wants, on a stream of ours that is opened for the first answer."""
        async for want in wants:
            try:
                async with await self._opened(peer) as stream:
                    await self._send(stream, await self._thread(self._reply, want, wants))
                    async for more in wants:
                        await self._send(stream, await self._thread(self._reply, more, wants))
                    await self._finish(stream)
            except (PeerUnreachable, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                continue  # the next want tries anew

    def _reply(self, want: Want, wants: trio.MemoryReceiveChannel[Want]) -> Message:
        """The answer to this want and to those behind it, as far as one message goes."""
        reply, size = Message(), 0
        while True:
            block = None if want.have else self._blocks.get(want.cid)
            if block is not None:
                reply.blocks.append((want.cid, block))
                size += len(block)
            elif want.have and self._blocks.has(want.cid):
                reply.presences.append((want.cid, True))
            elif want.tell_missing:
                reply.presences.append((want.cid, False))
            if size >= _ANSWER:
                return reply
            try:
                want = wants.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return reply

    # --- asking one

    async def has(self, peer: PeerID, cid: CID) -> bool:
        """Whether a peer has the root of a DAG; it cannot be asked about more. Raises PeerFault."""
        async with self._asking(peer) as (stream, want, heard):
            want(cid)
            await self._send(stream, Message(wants=[Want(cid=cid, have=True, tell_missing=True)]))
            return (await self._next(stream, heard))[1] is not None

    async def block(self, peer: PeerID, cid: CID) -> bytes:
        """One block of a peer's, its hash checked; it is not stored. Raises PeerFault."""
        async with self._asking(peer) as (stream, want, heard):
            want(cid)
            await self._send(stream, Message(wants=[Want(cid=cid, tell_missing=True)]))
            _, block = await self._next(stream, heard)
            if block is None or not (block or cid.verify(b"")):
                raise PeerFault(f"it does not have block {cid}")
            return block

    async def fetch(self, peer: PeerID, cid: CID) -> None:
        """Bring what is missing of the DAG below `cid` from one peer into the block store.

        Raises PeerFault when the peer falls silent, or at last when it lacks a block; InvalidContent,
        ContentTooLarge for what the content itself is.
        """
        await self.begin([cid]).run(peer, cid)

    def begin(self, wanted: Iterable[CID]) -> Frontier:
        """A fetch of these, which runs when it is told to, and may be looked at and split while it does."""
        return Frontier(self._blocks, wanted, self._bring)

    async def _bring(
        self, peer: PeerID, cid: CID, frontier: Frontier, arrived: Callable[[int], None]
    ) -> None:
        size = 0
        async with self._asking(peer) as (stream, want, heard):
            while True:
                missing = await self._thread(frontier.next_missing)
                for each in missing:
                    want(each)
                if missing:
                    wants = [Want(cid=_as_asked(each, cid), tell_missing=True) for each in missing]
                    await self._send(stream, Message(wants=wants))
                if not frontier.flying:
                    break
                blocks = await self._gather(stream, heard, frontier)
                size += sum(len(block) for _, block in blocks)
                self._blocks.limits.check_transfer(size)
                await self._thread(frontier.store, blocks)
                arrived(sum(len(block) for _, block in blocks))
        if frontier.lacking:
            raise PeerFault(f"it does not have block {next(iter(frontier.lacking))}")

    async def _gather(
        self, stream: HalfCloseableStream, heard: trio.MemoryReceiveChannel[_Heard], frontier: Frontier
    ) -> list[tuple[CID, bytes]]:
        """The next block that is on its way, or news of a missing one, and what came with it."""
        arrived: dict[CID, bytes] = {}
        waited = False
        while True:
            try:
                found, block = heard.receive_nowait() if waited else await self._next(stream, heard)
            except trio.WouldBlock:
                return list(arrived.items())
            waited = True
            if found not in frontier.flying or found in arrived:
                continue
            if block is None:
                frontier.lack(found)
            elif block or found.verify(b""):
                arrived[found] = block

    async def _next(self, stream: HalfCloseableStream, heard: trio.MemoryReceiveChannel[_Heard]) -> _Heard:
        """What is heard next. It comes on streams of the peer: a loss of ours has to be looked for."""
        with trio.fail_after(self._limits.idle):
            while True:
                with trio.move_on_after(LOOK_EVERY):
                    return await heard.receive()
                await stream.wait_send_all_might_not_block()

    @asynccontextmanager
    async def _asking(
        self, peer: PeerID
    ) -> AsyncIterator[tuple[HalfCloseableStream, Callable[[CID], None], trio.MemoryReceiveChannel[_Heard]]]:
        """A stream to ask on, a call that notes what is asked for, and what is heard about that.

        Raises PeerFault, also for what happens to the stream inside the block.
        """
        tell, heard = trio.open_memory_channel[_Heard](math.inf)
        noted: list[CID] = []

        def want(cid: CID) -> None:
            noted.append(cid.v1)
            self._asked.setdefault(peer, {}).setdefault(cid.v1, []).append(tell)

        try:
            async with await self._opened(peer) as stream:
                yield stream, want, heard
                await stream.send_eof()
        except (PeerUnreachable, RemoteProtocolError) as error:
            raise PeerFault(str(error)) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerFault("the connection was lost") from error
        except trio.TooSlowError as error:
            raise PeerFault(f"it sent nothing for {self._limits.idle:g} s") from error
        finally:
            asked = self._asked.get(peer, {})
            for cid in noted:
                asked[cid] = [other for other in asked.get(cid, ()) if other is not tell]
                if not asked[cid]:
                    del asked[cid]
            if not asked:
                self._asked.pop(peer, None)

    async def _opened(self, peer: PeerID) -> HalfCloseableStream:
        with trio.fail_after(self._limits.idle):
            return await self._open_stream(peer, PROTOCOL)

    async def _finish(self, stream: HalfCloseableStream) -> None:
        """End a stream and wait for its other end: closed sooner it is reset, and what was not read lost."""
        await stream.send_eof()
        with trio.move_on_after(self._limits.idle):
            while await stream.receive_some(_READ):
                pass

    async def _send(self, stream: HalfCloseableStream, message: Message) -> None:
        if not (message.wants or message.blocks or message.presences):
            return
        view = memoryview(message.encode())
        for start in range(0, len(view), _PIECE):
            with trio.fail_after(self._limits.idle):
                await stream.send_all(view[start : start + _PIECE])

    async def _thread(self, call: Callable[..., _T], *args: object) -> _T:
        return await trio.to_thread.run_sync(call, *args, limiter=self._threads)


_Bring = Callable[[PeerID, CID, "Frontier", Callable[[int], None]], Awaitable[None]]


class Frontier:
    """The blocks of a fetch that are to be asked for, that were, and that the peer lacks.

    `rest` and `split` may be called while another thread stores blocks.
    """

    def __init__(self, blocks: BlockStore, wanted: Iterable[CID], bring: _Bring) -> None:
        self._blocks = blocks
        self._bring = bring
        self._pending: list[tuple[CID, Depth]] = [(cid.v1, ROOT) for cid in wanted][::-1]
        self._seen = {cid for cid, _ in self._pending}
        self._lock = threading.Lock()
        self.flying: dict[CID, Depth] = {}
        self.lacking: dict[CID, None] = {}

    async def run(self, peer: PeerID, cid: CID, arrived: Callable[[int], None] = lambda size: None) -> None:
        """Bring all of it from one peer; they are parts of `cid`. `arrived` hears of bytes as they come.

        Raises as `Bitswap.fetch`.
        """
        await self._bring(peer, cid, self, arrived)

    def rest(self) -> list[CID]:
        """The blocks that would complete the fetch with all below them, the next first."""
        with self._lock:
            return [*self.flying, *(cid for cid, _ in reversed(self._pending)), *self.lacking]

    def split(self, keep: int) -> list[CID]:
        """Do without all but the next `keep` of those that were not asked for yet; they are returned."""
        with self._lock:
            last = max(len(self._pending) + len(self.flying) - max(keep, 1), 0)
            others, self._pending = self._pending[:last], self._pending[last:]
            return [cid for cid, _ in reversed(others)]

    def lack(self, cid: CID) -> None:
        """The peer does not have this one, which it was asked for."""
        with self._lock:
            del self.flying[cid]
            self.lacking[cid] = None

    def store(self, arrived: list[tuple[CID, bytes]]) -> None:
        """Blocks that were asked for. Raises ContentError for what they are."""
        with self._lock:
            for cid, block in arrived:
                self._enter(cid, self.flying[cid], block)
        self._blocks.put_all_verified(arrived)
        with self._lock:
            for cid, _ in arrived:
                del self.flying[cid]

    def next_missing(self) -> list[CID]:
        """Those to ask for now; what is in the store already is followed. Raises ContentError."""
        missing: list[CID] = []
        with self._lock:
            while self._pending and len(self.flying) < _IN_FLIGHT:
                wanted, depth = self._pending.pop()
                if (block := self._blocks.get(wanted)) is not None:
                    self._enter(wanted, depth, block)
                else:
                    self.flying[wanted] = depth
                    missing.append(wanted)
        return missing

    def _enter(self, found: CID, depth: Depth, block: bytes) -> None:
        limits = self._blocks.limits
        for link, below in reversed(links_of(decode(found, block, limits), depth, limits)):
            link.require_fetchable()
            if link.v1 not in self._seen:
                self._seen.add(link.v1)
                self._pending.append((link.v1, below))
        limits.check_blocks(len(self._seen))


def _as_asked(cid: CID, root: CID) -> CID:
    """The root as it was asked for: a peer may have a CIDv0 under that name only."""
    return root if cid == root.v1 else cid
