"""A DAG as a CAR stream while its blocks are still being fetched into the store."""

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
from bacalhau_p2p.runtime.events import AutoResetEvent
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.runtime.threads import Threads

PIECE_SIZE = 1024 * 1024
"""Bytes of a piece of the stream, or a little more; a piece is shorter when the next block is missing."""

_RECENT_SIZE = 8 * 1024 * 1024
"""Bytes of blocks that stay in memory until they are streamed; other blocks are read from the store."""


class RecentBlocks:
    """The blocks that arrived last, by CID; the oldest are dropped. May be used from any thread."""

    def __init__(self, size: int) -> None:
        """`size` is in bytes."""
        self._lock = threading.Lock()
        self._blocks: dict[CID, bytes] = {}
        self._free = size
        self.dropped_any = False
        """Whether a block was dropped before it was taken."""

    def __contains__(self, cid: object) -> bool:
        with self._lock:
            return cid in self._blocks

    def put(self, blocks: Sequence[tuple[CID, bytes]]) -> None:
        with self._lock:
            for cid, block in blocks:
                if cid.v1 not in self._blocks:
                    self._blocks[cid.v1] = block
                    self._free -= len(block)
            while self._free < 0:
                self._free += len(self._blocks.pop(next(iter(self._blocks))))
                self.dropped_any = True

    def take(self, cid: CID) -> bytes | None:
        """Remove and return the block: a CAR contains it once."""
        with self._lock:
            block = self._blocks.pop(cid, None)
            self._free += len(block or b"")
            return block

    def take_large(self, cid: CID) -> bytes | None:
        """`take` the block unless it is small: a piece with many small blocks is put together in a thread."""
        with self._lock:
            large = len(self._blocks.get(cid, b"")) > MAX_SMALL
        return self.take(cid) if large else None


class CarStream:
    """The CAR of one DAG, as far as the store has it; made by `stream_car`."""

    def __init__(self, root: CID, blocks: BlockStore, threads: Threads) -> None:
        self.size: int | None = None
        """Bytes of the file once its root block is there; None before that, and for folders."""
        self._blocks = blocks
        self._threads = threads
        self._walk = Walk([root], blocks.limits)
        self._unsent_header: list[bytes] = [header([root])]
        self._recent = RecentBlocks(_RECENT_SIZE)
        self._token = trio.lowlevel.current_trio_token()
        self._changed = AutoResetEvent()
        self._check_store = True
        """Whether the next block may be in the store."""
        self._fetched = False
        self._failure: ContentError | None = None

    @property
    def at_end(self) -> bool:
        """Whether the whole stream was received."""
        return self._walk.expected is None

    async def receive(self) -> bytes:
        """The next piece, b"" at the end. The first piece contains the root block.

        Raises what the fetch raised once all blocks before the failure were received, ContentNotFound when
        a block is no longer in the store.
        """
        await trio.lowlevel.checkpoint()
        while True:
            fetched = self._fetched
            piece = self._read(self._recent.take_large)
            if not piece and (self._check_store or fetched):
                piece = await self._threads.run(self._read, self._find)
            if piece or self.at_end:
                # What follows on a block that has just arrived will arrive too, unless it was there before.
                self._check_store = self._recent.dropped_any or self._walk.expected in self._recent
                return piece
            if fetched:
                if self._failure is not None:
                    raise self._failure
                self._blocks.forget_complete()
                raise ContentNotFound(f"block {self._walk.expected} is no longer in the store")
            await self._changed.wait()
            self._check_store = True

    def _find(self, cid: CID) -> bytes | None:
        return self._recent.take(cid) or self._blocks.get(cid)

    def _read(self, find: Callable[[CID], bytes | None]) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while size < PIECE_SIZE and (cid := self._walk.expected) is not None:
            block = find(cid)
            if block is None:
                break
            node = self._walk.take(block)
            if self._unsent_header:
                self.size = node.size if isinstance(node, File) else None
                pieces += self._unsent_header
                self._unsent_header = []
            pieces += (section_head(cid, block), block)
            size += len(block)
        return b"".join(pieces)

    def blocks_stored(self, blocks: Sequence[tuple[CID, bytes]]) -> None:
        """Called by the store, from any thread."""
        self._recent.put(blocks)
        self._token.run_sync_soon(self._changed.set, idempotent=True)

    def fetch_ended(self, failure: ContentError | None) -> None:
        """No more blocks will arrive."""
        self._fetched, self._failure = True, failure
        self._changed.set()


@asynccontextmanager
async def stream_car(
    root: CID, blocks: BlockStore, fetch: Callable[[], Awaitable[None]], threads: Threads
) -> AsyncIterator[CarStream]:
    """Run `fetch`, which brings the DAG below `root` into the store, and stream its blocks as they arrive.

    Leaving the block before the end of the CAR cancels the fetch; the blocks that arrived are kept.
    """
    stream = CarStream(root, blocks, threads)
    ended = trio.Event()

    async def run() -> None:
        failure: ContentError | None = None
        try:
            await fetch()
        except ContentError as error:
            failure = error
        stream.fetch_ended(failure)
        ended.set()

    with blocks.holding(root), blocks.watching(stream.blocks_stored):
        async with background() as nursery:
            nursery.start_soon(run)
            yield stream
            if stream.at_end:
                await ended.wait()
