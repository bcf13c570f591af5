"""Blocks on disk, and the pins that say who needs which root.

    <folder>/small.db        SQLite: blocks of up to 16 KiB
    <folder>/packs/<n>       larger blocks, one after the other
    <folder>/packs.db        SQLite: where each of those is
    <folder>/pins.db         SQLite: who needs what, until when
    <folder>/lock            locked while the store is open

A killed process leaves each block whole or absent. Only `sync` waits for the disk. What a power cut damages
otherwise is found when the store is opened or the block is read, since every read verifies the hash; it
counts as missing then.

Blocks that are neither pinned nor in use stay until space is needed: `collect` removes them, the oldest
first, and a `put` that would exceed the quota calls it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Self

from bacalhau_p2p.errors import ContentError, ContentTooLarge, InvalidContent, NoRoom
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.dag_stat import DagStat, dag_stat
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, MAX_BLOCK, Limits
from bacalhau_p2p.ipfs.store.complete_dags import CompleteDags
from bacalhau_p2p.ipfs.store.disk_blocks import DiskBlocks
from bacalhau_p2p.ipfs.store.disk_errors import disk_errors
from bacalhau_p2p.ipfs.store.garbage_collector import Collected, Page, collect, reachable_digests
from bacalhau_p2p.ipfs.store.live_set import Batch, LiveSet
from bacalhau_p2p.ipfs.store.pins import Pin, Pins
from bacalhau_p2p.ipfs.store.quota import Quota

__all__ = ["Batch", "BlockStore", "Collected", "Pin"]

Watcher = Callable[[Sequence[tuple[CID, bytes]]], None]
"""Called with blocks after they are stored, from any thread; it must neither block nor raise."""

_USED = "used"
"""The number that a store saves when it is closed: the bytes of its blocks."""


class BlockStore:
    """The blocks of one node. Every method blocks, and all may be called from any thread at any time.

    Blocks are stored by digest: the same bytes under another codec or CID version are stored once.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limits: Limits = DEFAULT_LIMITS,
        quota: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the store in `folder`, which is created if it is missing.

        `quota` is the limit for the bytes of all blocks; `clock`, in UNIX seconds, decides which pins have
        expired. Raises ContentError when another process has the store open or the folder cannot be used.
        """
        self.limits = limits
        self._clock = clock
        self._quota = Quota(quota)
        self._live = LiveSet()
        self._complete = CompleteDags(self._live.lock)
        self._collecting = threading.Lock()
        self._watchers: list[Watcher] = []
        with disk_errors(f"open the block store in {folder}"):
            self._open(folder)

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ContentError(
                    f"the block store in {folder} is in use by another process: stop it, or choose"
                    " another data directory"
                ) from None
            self._pins = undo.enter_context(closing(Pins(folder / "pins.db")))
            self._disk = undo.enter_context(closing(DiskBlocks(folder)))
            used = self._pins.take_number(_USED)  # absent after a crash
            self._quota.used = self._disk.total() if used is None or self._disk.lost_blocks else used
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Release the lock so another process can open the store. No other call may follow."""
        with suppress(sqlite3.OperationalError):  # the disk is full: the next start adds up the blocks
            self._pins.save_number(_USED, self._quota.used)
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- blocks

    def put(self, cid: CID, block: bytes) -> None:
        """Store one block, unless it is present.

        Raises InvalidContent when `block` does not match `cid`, ContentError when the disk refuses.
        """
        cid.require_match(block)
        self.put_verified(cid, block)

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        """`put` each block."""
        for cid, block in blocks:
            self.put(cid, block)

    def put_verified(self, cid: CID, block: bytes, batch: Batch | None = None) -> None:
        """`put` without verifying the hash, which the caller has computed or verified.

        With a `batch`, the block is not collected while the batch is open.
        """
        self.put_all_verified([(cid, block)], batch)

    def put_all_verified(self, blocks: Iterable[tuple[CID, bytes]], batch: Batch | None = None) -> None:
        """`put_verified` each block, faster than one by one. After an error, some are stored."""
        blocks = list(blocks)
        for cid, block in blocks:
            cid.require_fetchable()
            if len(block) > MAX_BLOCK:
                raise ContentTooLarge(f"block {cid} has {len(block)} bytes; the limit is {MAX_BLOCK}")
            self._live.add_block(cid.digest, batch)
        for table, bodies in self._disk.by_table(blocks):
            size = sum(len(body) for _, body in bodies)
            if not self._quota.fits(size):
                present = table.sizes([digest for digest, _ in bodies])
                self._make_room(sum(len(body) for digest, body in bodies if digest not in present))
            with disk_errors("store blocks"):
                added = table.put_all(bodies, int(self._clock()))
            with self._live.lock:
                self._quota.used += added
        for watcher in self._watchers:
            watcher(blocks)

    @contextmanager
    def watching(self, watcher: Watcher) -> Iterator[None]:
        """Inside the block, `watcher` is called with all blocks that are put."""
        self._watchers = [*self._watchers, watcher]
        try:
            yield
        finally:
            self._watchers = [other for other in self._watchers if other is not watcher]

    def get(self, cid: CID) -> bytes | None:
        """The block, its hash verified, or None. A damaged block is removed and counts as missing."""
        if not cid.fetchable:
            return None
        block = self._disk.get(cid)
        if block is None or cid.verify(block):
            return block
        block = self._disk.get(cid)  # it may have been removed during the first read, and stored again
        if block is None or cid.verify(block):
            return block
        self.delete(cid)
        return None

    def get_small(self, cids: Sequence[CID]) -> dict[CID, bytes]:
        """Those blocks that are present and small, their hashes verified."""
        blocks = self._disk.get_small([cid for cid in cids if cid.fetchable])
        return {cid: block for cid, block in blocks.items() if cid.verify(block)}

    def size(self, cid: CID) -> int | None:
        """Bytes of the block, or None. The block is not read."""
        return self._disk.size(cid) if cid.fetchable else None

    def sizes(self, cids: Sequence[CID]) -> dict[CID, int]:
        """Bytes of those blocks that are present."""
        return self._disk.sizes([cid for cid in cids if cid.fetchable])

    def has(self, cid: CID) -> bool:
        """Whether this one block is present; see `has_all` for a whole DAG."""
        return self.size(cid) is not None

    def delete(self, cid: CID) -> None:
        """Remove one block if it is present, pinned or not. Raises ContentError."""
        cid.require_fetchable()
        with self._live.lock:
            size = self.size(cid)
            if size is not None:
                with disk_errors(f"remove block {cid}"):
                    self._disk.remove(cid)
                self.before_removal(size)

    # --- DAGs

    def dag_stat(self, cid: CID, *, missing_limit: int = 1000) -> DagStat:
        """What the DAG below `cid` adds up to, and which of its blocks are missing. Cached once the DAG is
        complete. Raises InvalidContent, ContentTooLarge."""
        return self._complete.get(cid, lambda: dag_stat(cid, self, self.limits, missing_limit=missing_limit))

    def known_complete(self, cid: CID) -> bool:
        """Whether `dag_stat` found the DAG below `cid` complete, and no block was removed since."""
        return cid in self._complete

    def forget_complete(self) -> None:
        """Clear the cache of complete DAGs, because a block of one turned out to be missing."""
        with self._live.lock:
            self._complete.clear()

    def has_all(self, cid: CID) -> bool:
        """Whether the DAG below `cid` is complete and within the limits."""
        if not self.has(cid):
            return False
        try:
            return self.dag_stat(cid, missing_limit=1).complete
        except (InvalidContent, ContentTooLarge):
            return False

    def sync(self, root: CID) -> None:
        """Wait until no power cut can undo what is stored below `root`, and all pins.

        It waits for each pack that holds one of the blocks. Raises ContentError when the disk refuses.
        """
        with disk_errors(f"sync {root} to the disk"):
            self._disk.sync(reachable_digests(self, root))
            self._pins.sync()

    # --- pins and other uses

    def pin(self, cid: CID, owner: str, expires: float | None = None) -> None:
        """Pin the DAG below `cid` for `owner`; a second pin of the same owner replaces the expiry.

        It does not notice blocks that are removed before it returns: hold the root until then.
        Raises ContentError when the disk refuses.
        """
        with disk_errors(f"pin {cid}"):
            self._pins.add(cid, owner, expires)
        self._live.add_pin(cid)

    def unpin(self, cid: CID, owner: str) -> bool:
        """Remove the pin; returns whether there was one. Raises ContentError when the disk refuses."""
        with disk_errors(f"unpin {cid}"):
            return self._pins.remove(cid, owner)

    def pins(self, cid: CID | None = None, *, now: float | None = None) -> list[Pin]:
        """The pins of one root, or all; with `now` (UNIX seconds), only those that have not expired."""
        return self._pins.find(cid, now)

    def pinned_roots(self, owners: Sequence[str]) -> list[CID]:
        """What is pinned now by owners that match one of these GLOB patterns, each root once."""
        return self._pins.roots(self._clock(), owners)

    def remove_expired_pins(self) -> None:
        """Raises ContentError when the disk refuses."""
        with disk_errors("remove pins"):
            self._pins.remove_expired(self._clock())

    def holding(self, *roots: CID) -> AbstractContextManager[None]:
        """Inside the block, nothing below `roots` is collected, whether it is there or arrives."""
        return self._live.holding(roots)

    def batch(self) -> AbstractContextManager[Batch]:
        """Inside the block, no block that is put with the batch is collected."""
        return self._live.batch()

    # --- space

    @property
    def used(self) -> int:
        """Bytes of all blocks."""
        return self._quota.used

    @property
    def quota(self) -> int | None:
        """The limit for the bytes of all blocks."""
        return self._quota.limit

    @property
    def needs_collection(self) -> bool:
        """Whether so much of the quota is used that blocks should be collected."""
        return self._quota.above_high_water

    def collect(self, *, everything: bool = True, checkpoint: Callable[[], None] = lambda: None) -> Collected:
        """Remove blocks that are neither pinned nor in use: all of them, or the oldest ones until the
        low-water mark of the quota is reached.

        `checkpoint` is called now and then and may raise to stop. Raises ContentError.
        """
        with self._collecting:
            return self._collect(everything, checkpoint)

    def _collect(self, everything: bool, checkpoint: Callable[[], None]) -> Collected:
        now = self._clock()
        with disk_errors("remove blocks"):
            self._pins.remove_expired(now)
            return collect(
                self,
                self._live,
                lambda: self._pins.roots(now),
                bytes_to_free=inf if everything else self._quota.above_low_water,
                checkpoint=checkpoint,
            )

    def _make_room(self, size: int) -> None:
        with self._collecting:
            if not self._quota.fits(size):
                self._collect(False, lambda: None)
        if not self._quota.fits(size):
            raise NoRoom(
                f"the block store is full: {self.used} of {self.quota} bytes are pinned or in use; unpin"
                " content or raise content_quota"
            )

    def pages(self) -> Iterator[Page]:
        """All blocks, for the garbage collector."""
        return self._disk.pages()

    def before_removal(self, size: int) -> None:
        """Account for the removal of blocks of `size` bytes. The lock of the live set is held."""
        self._quota.used -= size
        self._complete.clear()
