"""Finds out which content is at a path below a CID, with the blocks on the way to it and no others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from bacalhau_p2p.errors import ContentNotFound, ContentTooLarge, InvalidContent, PathNotFound
from bacalhau_p2p.ipfs.content.peers import ContentPeers
from bacalhau_p2p.ipfs.files.reader import resolve
from bacalhau_p2p.ipfs.format.block_source import BlockSource, TrackedSource, require_block
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_pb import decode_block
from bacalhau_p2p.ipfs.format.limits import MAX_BLOCK
from bacalhau_p2p.ipfs.format.traversal import folder_entries
from bacalhau_p2p.ipfs.format.unixfs import File, Folder, Node, Shard, Symlink, decode
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.threads import Threads

_EMPTY_FILE = CID.of(RAW, b"")
MAX_DEPTH = 64
"""Folders in one another."""
MAX_PATH_BLOCKS = 1000
"""Blocks on the way to one path: 64 names, each in a large folder of up to eight levels, are fewer."""
CHECK_AFTER = 100
"""Entries of folders after which a walk looks whether it was cancelled."""
MAX_KNOWN_FOLDERS = 64
"""Folders of which a walk remembers what is in them."""
MAX_NAMES = 10_000_000
"""Names in the paths of all files and folders of one folder; some 80 MB."""


class ContentPaths:
    """Resolves paths with the blocks of one store and of its peers."""

    def __init__(self, blocks: BlockStore, peers: ContentPeers, threads: Threads) -> None:
        self._blocks = blocks
        self._peers = peers
        self._threads = threads
        self._sizing = Threads(1)
        """For walks that anybody may cause."""

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
                if not await self._bring(missing, hints):
                    return None
        return None

    async def files(
        self, cid: CID, *, hints: Sequence[PeerID], timeout: float | None
    ) -> list[tuple[tuple[str, ...], CID]] | None:
        """The paths and CIDs of all files below `cid`, sorted. Blocks that are missing are brought as by
        `search`; None when that fails."""
        walk = _FileWalk(cid, self._blocks)
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            if await self._walked(walk, hints, self._threads):
                return sorted(walk.found)
        return None

    async def file_sizes(
        self, cid: CID, *, hints: Sequence[PeerID], timeout: float
    ) -> list[tuple[tuple[str, ...], int]] | None:
        """The paths of all files below `cid`, and their sizes as their own blocks or those of their folders
        claim. None when blocks are missing that nobody sends in `timeout` seconds, or claim nothing.

        Raises InvalidContent, ContentTooLarge."""
        cid.require_fetchable()
        walk = _FileWalk(cid, self._blocks, sized=True)
        with trio.move_on_after(timeout):
            if await self._walked(walk, hints, self._sizing):
                sizes = [(path, walk.claimed.get(file, 0)) for path, file in walk.found]
                return sizes if all(walk.claimed.get(file) is not None for _, file in walk.found) else None
        return None

    async def _walked(self, walk: _FileWalk, hints: Sequence[PeerID], threads: Threads) -> bool:
        """Whether all files were found."""
        for _ in range(MAX_PATH_BLOCKS):
            missing = await threads.run(walk.advance)
            if missing is None:
                return True
            if not await self._bring(missing, hints):
                return False
        return False

    async def _bring(self, missing: CID, hints: Sequence[PeerID]) -> bool:
        """Fetch and store one block; whether a peer sent it."""
        block = await self._peers.root_block(missing, hints)
        if block is None:
            return False
        if len(block) > MAX_BLOCK:
            raise InvalidContent(f"block {missing} has more than {MAX_BLOCK:,} bytes")
        missing.require_match(block)
        await self._threads.run(self._blocks.put_all_verified, [(missing, block)])
        return True

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


class _FileWalk:
    """Finds the files in a folder, as far as its blocks are there, and goes on when others have come."""

    def __init__(self, root: CID, blocks: BlockStore, *, sized: bool = False) -> None:
        """With `sized`, what is claimed about the sizes of files is noted, too."""
        self._blocks = blocks
        self._sized = sized
        self.claimed: dict[CID, int] = {_EMPTY_FILE: 0}
        """Bytes of files."""
        self._pending: list[tuple[tuple[str, ...], CID]] = [((), root)]
        self._seen = self._names = 0
        self._folders: dict[CID, list[tuple[str, CID]]] = {}
        """What is in the latest folders: the same one may be in many places."""
        self.found: list[tuple[tuple[str, ...], CID]] = []

    def advance(self) -> CID | None:
        """The first block that is missing; None when all files are found. Blocks, in a thread of trio, until
        it is cancelled."""
        source, limits = TrackedSource(self._blocks), self._blocks.limits
        steps = 0
        while self._pending:
            steps += 1
            if not steps % CHECK_AFTER:
                trio.from_thread.check_cancelled()
            path, cid = self._pending[-1]
            try:
                below = self._entries(path, cid, source)
            except ContentNotFound:
                return source.missing
            self._pending.pop()
            self._pending += below
            # Each time that a folder is linked to counts: small ones in each other have entries without end.
            self._seen += len(below)
            self._names += sum(len(names) for names, _ in below)
            limits.check_entries(self._seen)
            if self._names > MAX_NAMES:
                raise ContentTooLarge(f"the paths in the content have more than {MAX_NAMES} names together")
        return None

    def _entries(
        self, path: tuple[str, ...], cid: CID, source: TrackedSource
    ) -> list[tuple[tuple[str, ...], CID]]:
        """What is in a folder; nothing for a file, which is noted."""
        known = self._folders.get(cid)
        node = None if cid.codec == RAW or known is not None else self._load(cid, source)
        if isinstance(node, Folder | Shard):
            known = [
                (each.name, each.cid)
                for each in folder_entries(cid, node, partial(self._load, source=source))
            ]
            self._folders[cid] = known
            if len(self._folders) > MAX_KNOWN_FOLDERS:
                del self._folders[next(iter(self._folders))]
        if known is not None:
            if len(path) > MAX_DEPTH:
                raise InvalidContent(f"folders are nested more than {MAX_DEPTH} deep")
            return [((*path, name), below) for name, below in known]
        if not isinstance(node, Symlink):
            self.found.append((path, cid))
            if isinstance(node, File):
                self.claimed[cid] = node.size
        return []

    def _load(self, cid: CID, source: BlockSource) -> Node:
        """The node; what a folder claims about files of one block is noted."""
        block = require_block(cid, source)
        node = decode(cid, block, self._blocks.limits)
        if self._sized and isinstance(node, Folder | Shard):
            links = decode_block(cid, block).links
            self.claimed.update((each.cid, each.tsize) for each in links if each.tsize)
        return node
