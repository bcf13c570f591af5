"""The want list of one fetch: blocks to ask for, blocks in flight, and blocks that the peer lacks."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.traversal import ROOT, Depth, links_of
from bacalhau_p2p.ipfs.format.unixfs import decode
from bacalhau_p2p.ipfs.store.block_store import BlockStore

MAX_IN_FLIGHT = 64
"""Blocks of one fetch that were asked for and have not arrived."""


class WantList:
    """Goes through DAGs depth first. `rest` and `split` may be called while another thread stores blocks."""

    def __init__(self, blocks: BlockStore, wanted: Iterable[CID]) -> None:
        self._blocks = blocks
        self._pending: list[tuple[CID, Depth]] = [(cid.v1, ROOT) for cid in wanted][::-1]
        self._seen = {cid for cid, _ in self._pending}
        self._lock = threading.Lock()
        self.in_flight: dict[CID, Depth] = {}
        self.unavailable: dict[CID, None] = {}
        """Blocks that the peer does not have."""

    def rest(self) -> list[CID]:
        """The blocks that would complete the fetch with everything below them, the next first."""
        with self._lock:
            return [*self.in_flight, *(cid for cid, _ in reversed(self._pending)), *self.unavailable]

    def split(self, keep: int) -> list[CID]:
        """Keep only the next `keep` blocks, and return those of the others that were not asked for yet."""
        with self._lock:
            last = max(len(self._pending) + len(self.in_flight) - max(keep, 1), 0)
            others, self._pending = self._pending[:last], self._pending[last:]
            return [cid for cid, _ in reversed(others)]

    def next_missing(self) -> list[CID]:
        """The blocks to ask for now; the links of stored blocks are followed. Raises ContentError."""
        missing: list[CID] = []
        with self._lock:
            while self._pending and len(self.in_flight) < MAX_IN_FLIGHT:
                wanted, depth = self._pending.pop()
                if (block := self._blocks.get(wanted)) is not None:
                    self._add_links(wanted, depth, block)
                else:
                    self.in_flight[wanted] = depth
                    missing.append(wanted)
        return missing

    def mark_unavailable(self, cid: CID) -> None:
        """The peer does not have this block, which it was asked for."""
        with self._lock:
            del self.in_flight[cid]
            self.unavailable[cid] = None

    def store(self, arrived: list[tuple[CID, bytes]]) -> None:
        """Store blocks that were asked for. Raises ContentError for what is wrong in them."""
        with self._lock:
            for cid, block in arrived:
                self._add_links(cid, self.in_flight[cid], block)
        self._blocks.put_all_verified(arrived)
        with self._lock:
            for cid, _ in arrived:
                del self.in_flight[cid]

    def _add_links(self, cid: CID, depth: Depth, block: bytes) -> None:
        limits = self._blocks.limits
        for link, below in reversed(links_of(decode(cid, block, limits), depth, limits)):
            link.require_fetchable()
            if link.v1 not in self._seen:
                self._seen.add(link.v1)
                self._pending.append((link.v1, below))
        limits.check_blocks(len(self._seen))
