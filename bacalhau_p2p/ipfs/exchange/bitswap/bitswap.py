"""Bitswap of one node.

Each side has a stream of its own to the other: what a peer wants arrives on its streams, and our answers
go out on ours. A block is stored only if it was requested from this very peer. Want lists are not remembered:
a missing block is reported as missing at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakValueDictionary

import trio
from trio.abc import HalfCloseableStream, ReceiveStream

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.ipfs.exchange.bitswap.fetch import BitswapFetch
from bacalhau_p2p.ipfs.exchange.bitswap.pending_wants import PendingWants
from bacalhau_p2p.ipfs.exchange.bitswap.responder import Responder
from bacalhau_p2p.ipfs.exchange.bitswap.session import SessionOpener
from bacalhau_p2p.ipfs.exchange.bitswap.streams import OutboundStreams
from bacalhau_p2p.ipfs.exchange.bitswap.wire import PROTOCOL, Message, Want, take_message
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits, OpenStream
from bacalhau_p2p.ipfs.exchange.want_budget import WantBudget
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.tasks import all_or_first_fault
from bacalhau_p2p.runtime.threads import Threads

__all__ = ["PROTOCOL", "Bitswap"]

MAX_WAITING_WANTS = 4096
"""Wants of one peer that wait for their answer; with more, its stream is not read any further."""
STREAMS_PER_PEER = 16
"""Streams of one peer that are read at the same time; others wait. kubo sends each answer on a stream of its
own, eight at a time, and opens further streams while we still process those that it has ended."""

_READ_SIZE = 256 * 1024


class Bitswap:
    """Serves inbound streams, and asks single peers for blocks."""

    def __init__(
        self,
        blocks: BlockStore,
        open_stream: OpenStream,
        *,
        limits: ExchangeLimits = ExchangeLimits(),  # noqa: B008 - frozen
        threads: Threads | None = None,
    ) -> None:
        self._blocks = blocks
        self._threads = threads or Threads(2)
        streams = OutboundStreams(open_stream, limits.idle)
        self._pending = PendingWants()
        self._responder = Responder(blocks, streams, self._threads)
        self._sessions = SessionOpener(streams, self._pending, limits.idle)
        self._budget = WantBudget()
        self._slots: WeakValueDictionary[PeerID, trio.Semaphore] = WeakValueDictionary()

    # --- serving

    async def serve(self, peer: PeerID, stream: HalfCloseableStream) -> None:
        """Process the messages on an inbound stream until it ends. Raises RemoteProtocolError."""
        slots = self._slots.setdefault(peer, trio.Semaphore(STREAMS_PER_PEER))
        send, wants = trio.open_memory_channel[Want](MAX_WAITING_WANTS)

        async def receive() -> None:
            async with send:
                await self._receive(peer, stream, send)

        async def answer() -> None:
            await self._responder.answer(peer, wants)

        faults = (RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError)
        async with slots:
            try:
                await all_or_first_fault([receive, answer], *faults)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the peer is gone

    async def _receive(
        self, peer: PeerID, stream: ReceiveStream, wants: trio.MemorySendChannel[Want]
    ) -> None:
        buffer = bytearray()
        while data := await stream.receive_some(_READ_SIZE):
            buffer += data
            while (body := take_message(buffer)) is not None:
                await self._budget.wait(peer)
                message = await self._threads.run(Message.decode, body)
                self._budget.charge(peer, len(message.wants))
                for cid, block in message.blocks:
                    self._pending.deliver(peer, cid, block)
                for cid, has in message.presences:
                    self._pending.deliver(peer, cid.v1, has)
                for want in {want.cid: want for want in message.wants}.values():
                    if not want.cancel:
                        await wants.send(want)

    # --- asking one peer

    async def has(self, peer: PeerID, cid: CID) -> bool:
        """Whether a peer has the root of a DAG; bitswap cannot ask about more. Raises PeerFault."""
        async with self._sessions.open(peer) as session:
            await session.ask([Want(cid=cid, have=True, send_dont_have=True)])
            _, answer = await session.next_answer()
            return answer is not False

    async def block(self, peer: PeerID, cid: CID) -> bytes:
        """One block of a peer, its hash checked; it is not stored. Raises PeerFault."""
        async with self._sessions.open(peer) as session:
            await session.ask([Want(cid=cid, send_dont_have=True)])
            _, answer = await session.next_answer()
            if not isinstance(answer, bytes):
                raise PeerFault(f"block {cid} is missing")
            return answer

    async def fetch(self, peer: PeerID, cid: CID) -> None:
        """Bring what is missing of the DAG below `cid` from one peer into the block store.

        Raises PeerFault when the peer sends nothing, or at last when it lacks a block; InvalidContent,
        ContentTooLarge for what is wrong in the content.
        """
        await self.prepare([cid]).run(peer, cid)

    def prepare(self, wanted: Iterable[CID]) -> BitswapFetch:
        """A fetch of these blocks and all below them that has not started."""
        return BitswapFetch(self._blocks, wanted, self._sessions, self._threads)
