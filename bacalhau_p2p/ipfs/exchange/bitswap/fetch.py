"""Fetches DAGs from one peer by bitswap."""

from __future__ import annotations

from collections.abc import Iterable

from bacalhau_p2p.ipfs.exchange.bitswap.session import Answer, Session, SessionOpener
from bacalhau_p2p.ipfs.exchange.bitswap.want_list import WantList
from bacalhau_p2p.ipfs.exchange.bitswap.wire import Want
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.interface import OnBytes
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.threads import Threads


class BitswapFetch(WantList):
    """A fetch of some blocks and everything below them. It runs once."""

    def __init__(
        self, blocks: BlockStore, wanted: Iterable[CID], sessions: SessionOpener, threads: Threads
    ) -> None:
        super().__init__(blocks, wanted)
        self._sessions = sessions
        self._threads = threads

    async def run(self, peer: PeerID, cid: CID, on_bytes: OnBytes = lambda size: None) -> None:
        """Fetch from one peer; the wanted blocks are parts of `cid`. Raises as `Bitswap.fetch`."""
        total = 0
        async with self._sessions.open(peer) as session:
            while True:
                missing = await self._threads.run(self.next_missing)
                if missing:
                    names = [_as_requested(each, cid) for each in missing]
                    await session.ask([Want(cid=name, send_dont_have=True) for name in names])
                if not self.in_flight:
                    break
                blocks = await self._next_blocks(session)
                size = sum(len(block) for _, block in blocks)
                total += size
                self._blocks.limits.check_transfer(total)
                await self._threads.run(self.store, blocks)
                on_bytes(size)
        if self.unavailable:
            raise PeerFault(f"block {next(iter(self.unavailable))} is missing")

    async def _next_blocks(self, session: Session) -> list[tuple[CID, bytes]]:
        """The blocks that have arrived; waits for the next answer when there is none."""
        arrived: dict[CID, bytes] = {}
        answer: Answer | None = await session.next_answer()
        while answer is not None:
            cid, block = answer
            if cid in self.in_flight and cid not in arrived:
                if isinstance(block, bytes):
                    arrived[cid] = block
                elif not block:
                    self.mark_unavailable(cid)
            answer = session.next_answer_nowait()
        return list(arrived.items())


def _as_requested(cid: CID, root: CID) -> CID:
    """The root under the CID that it was requested by: a peer may know it only by a CIDv0."""
    return root if cid == root.v1 else cid
