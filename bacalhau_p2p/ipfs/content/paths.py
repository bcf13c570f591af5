"""Finds out which content is at a path below a CID, with the blocks on the way to it and no others."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from bacalhau_p2p.errors import ContentNotFound, InvalidContent, PathNotFound
from bacalhau_p2p.ipfs.content.peers import ContentPeers
from bacalhau_p2p.ipfs.files.reader import resolve
from bacalhau_p2p.ipfs.format.block_source import TrackedSource
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import MAX_BLOCK
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.threads import Threads

MAX_PATH_BLOCKS = 1000
"""Blocks on the way to one path: 64 names, each in a large folder of up to eight levels, are fewer."""


class ContentPaths:
    """Resolves paths with the blocks of one store and of its peers."""

    def __init__(self, blocks: BlockStore, peers: ContentPeers, threads: Threads) -> None:
        self._blocks = blocks
        self._peers = peers
        self._threads = threads

    async def stored(self, cid: CID, names: Sequence[str]) -> CID | None:
        """The CID of what is at the path, None when a block on the way is not in the store.

        Raises PathNotFound, InvalidContent.
        """
        return (await self._threads.run(self._resolve, cid, names))[0]

    async def search(
        self, cid: CID, names: Sequence[str], *, hints: Sequence[PeerID], timeout: float | None
    ) -> CID | None:
        """As `stored`, but asks `hints` and other peers for each missing block, and stores it. None when none
        of them sends it within `timeout` seconds."""
        cid.require_fetchable()
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            for _ in range(MAX_PATH_BLOCKS):
                found, missing = await self._threads.run(self._resolve, cid, names)
                if missing is None:
                    return found
                block = await self._peers.root_block(missing, hints)
                if block is None:
                    return None
                if len(block) > MAX_BLOCK:
                    raise InvalidContent(f"block {missing} has more than {MAX_BLOCK:,} bytes")
                missing.require_match(block)
                await self._threads.run(self._blocks.put_all_verified, [(missing, block)])
        return None

    def _resolve(self, cid: CID, names: Sequence[str]) -> tuple[CID | None, CID | None]:
        """What is at the path, or the first block on the way that is missing."""
        if not names:
            return cid, None
        source = TrackedSource(self._blocks)
        try:
            return resolve(cid, tuple(names), source, self._blocks.limits).cid, None
        except PathNotFound:
            raise
        except ContentNotFound:
            return None, source.missing
