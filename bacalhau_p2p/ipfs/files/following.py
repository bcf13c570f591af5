"""A DAG as a CAR while its blocks are still on their way into the store."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from bacalhau_p2p.errors import ContentError, ContentNotFound
from bacalhau_p2p.ipfs.format.car import header, section_head
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.traversal import Walk
from bacalhau_p2p.ipfs.format.unixfs import File
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.ipfs.store.small_blocks import MAX_SMALL
from bacalhau_p2p.runtime.threads import Threads

PIECE = 1024 * 1024
"""Bytes that are given at one time, or a little more, as soon as they are there."""

_RECENT = 8 * 1024 * 1024
"""Bytes of blocks that are kept from when they arrive until their turn; others are read from the store."""


class Recent:
    """Blocks that arrived just now, by CID; the oldest give way. May be used from any thread."""

    def __init__(self, room: int) -> None:
        """`room`: bytes."""
        self._lock = threading.Lock()
        self._blocks: dict[CID, bytes] = {}
        self._room = room
        self.gave_way = False
        """Whether a block was dropped that nobody had taken."""

    def __contains__(self, cid: object) -> bool:
        with self._lock:
            return cid in self._blocks

    def put(self, blocks: Sequence[tuple[CID, bytes]]) -> None:
        with self._lock:
            for cid, block in blocks:
                if cid.v1 not in self._blocks:
                    self._blocks[cid.v1] = block
                    self._room -= len(block)
            while self._room < 0:
                self._room += len(self._blocks.pop(next(iter(self._blocks))))
                self.gave_way = True

    def take(self, cid: CID) -> bytes | None:
        """The block, which is forgotten: in a CAR it is needed once."""
        with self._lock:
            block = self._blocks.pop(cid, None)
            self._room += len(block or b"")
            return block

    def take_large(self, cid: CID) -> bytes | None:
        """`take`, if it is none of the small ones, of which a piece has so many that they want a thread."""
        with self._lock:
            large = len(self._blocks.get(cid, b"")) > MAX_SMALL
        return self.take(cid) if large else None


class Follower:
    """The CAR of one DAG, as far as the store has it; made by `following`."""

    def __init__(self, root: CID, blocks: BlockStore, threads: Threads) -> None:
        self.size: int | None = None
        """Bytes of the file, once its first block is there; None while they are not known, and of folders."""
        self._blocks = blocks
        self._threads = threads
        self._walk = Walk([root], blocks.limits)
        self._begun: list[bytes] = [header([root])]
        self._recent = Recent(_RECENT)
        self._token = trio.lowlevel.current_trio_token()
        self._changed = trio.Event()
        self._look = True
        """Whether to look for the next block in the store."""
        self._done = False
        self._failure: ContentError | None = None

    @property
    def at_end(self) -> bool:
        """Whether all has been given."""
        return self._walk.expected is None

    async def receive(self) -> bytes:
        """The next piece, b"" at the end. The first comes with the root block.

        Raises what the fetch raised when no more can be given; ContentNotFound when a block has vanished.
        """
        await trio.lowlevel.checkpoint()
        while True:
            changed, done = self._changed, self._done
            piece = self._read(self._recent.take_large)
            if not piece and (self._look or done):
                piece = await self._threads.run(self._read, self._find)
            if piece or self.at_end:
                # What follows on a block that came just now is on its way too, unless it came before.
                self._look = self._recent.gave_way or self._walk.expected in self._recent
                return piece
            if done:
                if self._failure is not None:
                    raise self._failure
                self._blocks.forget_complete()
                raise ContentNotFound(f"block {self._walk.expected} vanished from the store")
            await changed.wait()
            self._look = True

    def _find(self, cid: CID) -> bytes | None:
        return self._recent.take(cid) or self._blocks.get(cid)

    def _read(self, find: Callable[[CID], bytes | None]) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while size < PIECE and (cid := self._walk.expected) is not None:
            block = find(cid)
            if block is None:
                break
            node = self._walk.take(block)
            if self._begun:
                self.size = node.size if isinstance(node, File) else None
                pieces += self._begun
                self._begun = []
            pieces += (section_head(cid, block), block)
            size += len(block)
        return b"".join(pieces)

    def arrived(self, blocks: Sequence[tuple[CID, bytes]]) -> None:
        """Told by the store, from any thread."""
        self._recent.put(blocks)
        self._token.run_sync_soon(self._wake, idempotent=True)

    def ended(self, failure: ContentError | None) -> None:
        """Nothing more will come."""
        self._done, self._failure = True, failure
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def following(
    root: CID, blocks: BlockStore, fetch: Callable[[], Awaitable[None]], threads: Threads
) -> AsyncIterator[Follower]:
    """A block in which `fetch`, which brings the DAG below `root` into the store, runs and is followed.

    The fetch is cancelled when the block is left before the end of the CAR; what came is kept.
    """
    follower = Follower(root, blocks, threads)
    failure: ContentError | None = None

    async def run() -> None:
        try:
            await fetch()
        except ContentError as error:
            follower.ended(error)
        else:
            follower.ended(None)

    with blocks.holding(root), blocks.watching(follower.arrived):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            try:
                yield follower
            except ContentError as error:  # carried out of the nursery, which would wrap it
                failure = error
            if not follower.at_end:
                nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
