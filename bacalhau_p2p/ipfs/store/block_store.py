"""Blocks on disk, and the pins that say who needs which root.

    <folder>/small.db        SQLite: blocks of up to 16 KiB
    <folder>/packs/<n>       larger ones, one behind the other
    <folder>/packs.db        SQLite: where each of these is
    <folder>/pins.db         SQLite: who needs what, until when
    <folder>/lock            held while the store is open

A process that dies leaves a whole block or none. Nothing waits for the disk but `sync`; what a power cut
damages otherwise is noticed when the store is opened or the block is read, since every read checks the
hash, and counts as missing from then on.

Blocks that no pin leads to and nobody uses stay until room is wanted: `collect` removes them, the
oldest first, and is called by a `put` that would exceed the quota.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Self

from bacalhau_p2p.errors import ContentError, ContentTooLarge, InvalidContent, NoRoom
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_stat import DagStat, dag_stat
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, MAX_BLOCK, Limits
from bacalhau_p2p.ipfs.store.claims import Batch, Claims
from bacalhau_p2p.ipfs.store.collector import Collected, Group, collect, digests_below
from bacalhau_p2p.ipfs.store.packs import Packs
from bacalhau_p2p.ipfs.store.pins import Pin, Pins
from bacalhau_p2p.ipfs.store.small_blocks import MAX_SMALL, SmallBlocks

__all__ = ["BlockStore", "Collected", "Pin"]

HIGH_WATER = 0.9
"""The part of the quota above which `wants_room` says that blocks should be collected."""
LOW_WATER = 0.7
"""The part of the quota down to which they are."""
_REMEMBERED = 10_000
"""DAGs that are known to be complete."""

Watcher = Callable[[Sequence[tuple[CID, bytes]]], None]
"""Is told of blocks once they are stored, from whatever thread did it; it may neither block nor raise."""


class BlockStore:
    """The blocks of one node. Every method blocks; all may be called from any thread, at once.

    Blocks are kept by digest: the same bytes under another codec or CID version are stored once.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limits: Limits = DEFAULT_LIMITS,
        quota: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the store in `folder`, made when it is not there.

        `quota` is how many bytes its blocks may have in all; `clock`, in UNIX seconds, says which pins
        have expired. Raises ContentError when another process has it open or the folder cannot be used.
        """
        self.limits = limits
        self.quota = quota
        self._clock = clock
        self._claims = Claims()
        self._collecting = threading.Lock()
        self._used = 0
        self._removals = 0
        self._complete: dict[CID, DagStat] = {}
        self._watchers: list[Watcher] = []
        try:
            self._prepare(folder)
        except (OSError, sqlite3.Error) as error:
            raise ContentError(f"the block store in {folder} cannot be used: {error}") from None

    def _prepare(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ContentError(f"the block store in {folder} is in use by another process") from None
            self._pins = undo.enter_context(closing(Pins(folder / "pins.db")))
            self._small = undo.enter_context(closing(SmallBlocks(folder / "small.db")))
            self._packs = undo.enter_context(closing(Packs(folder / "packs.db", folder / "packs")))
            used = self._pins.take_note("used")  # it is there when the store was closed well
            if used is None or self._packs.lost_some:
                used = self._small.total() + self._packs.total()
            self._used = used
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Give the folder free for another process. No other call may follow."""
        with suppress(sqlite3.OperationalError):  # a full disk: the blocks are measured at the next start
            self._pins.note("used", self._used)
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- blocks

    def put(self, cid: CID, block: bytes) -> None:
        """Store one block; one that is there already is left as it is.

        Raises InvalidContent when `block` is not what `cid` names, ContentError when the disk refuses.
        """
        cid.require_match(block)
        self.put_verified(cid, block)

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        """`put` for each."""
        for cid, block in blocks:
            self.put(cid, block)

    def put_verified(self, cid: CID, block: bytes, batch: Batch | None = None) -> None:
        """`put` for a caller who has just hashed the block, or checked its hash.

        With a `batch`, the block stays while that is open; see `batch`.
        """
        self.put_all_verified([(cid, block)], batch)

    def put_all_verified(self, blocks: Iterable[tuple[CID, bytes]], batch: Batch | None = None) -> None:
        """`put_verified` for each, which is quicker for many together. After an error, some are stored."""
        blocks = list(blocks)
        small: list[tuple[bytes, bytes]] = []
        large: list[tuple[bytes, bytes]] = []
        for cid, block in blocks:
            cid.require_fetchable()
            if len(block) > MAX_BLOCK:
                raise ContentTooLarge(f"block {cid} has {len(block)} bytes; at most {MAX_BLOCK} are allowed")
            self._claims.arrive(cid.digest, batch)
            (small if len(block) <= MAX_SMALL else large).append((cid.digest, block))
        for table, some in ((self._packs, large), (self._small, small)):
            if some:
                self._put(table, some)
        for watcher in self._watchers:
            watcher(blocks)

    @contextmanager
    def watching(self, watcher: Watcher) -> Iterator[None]:
        """A block during which `watcher` is told of every block that is put."""
        self._watchers = [*self._watchers, watcher]
        try:
            yield
        finally:
            self._watchers = [other for other in self._watchers if other is not watcher]

    def _put(self, table: Packs | SmallBlocks, blocks: list[tuple[bytes, bytes]]) -> None:
        if self.quota is not None:
            size = sum(len(block) for _, block in blocks)
            if self._used + size > self.quota:
                held = table.sizes([digest for digest, _ in blocks])
                self._make_room(sum(len(block) for digest, block in blocks if digest not in held))
        try:
            fresh = table.put_all(blocks, int(self._clock()))
        except (OSError, sqlite3.Error) as error:
            raise _refused("blocks cannot be stored", error) from None
        with self._claims.lock:
            self._used += fresh

    def get(self, cid: CID) -> bytes | None:
        """The block, its hash checked, or None. A damaged one is removed and counts as missing."""
        if not cid.fetchable:
            return None
        block = self._find(cid)
        if block is None or cid.verify(block):
            return block
        block = self._find(cid)  # it may have been removed while it was read, and stored again
        if block is None or cid.verify(block):
            return block
        self.delete(cid)
        return None

    def _find(self, cid: CID) -> bytes | None:
        leaf = cid.codec == RAW  # which is large, as a rule
        first, second = (self._packs, self._small) if leaf else (self._small, self._packs)
        block = first.get(cid.digest)
        return second.get(cid.digest) if block is None else block

    def size(self, cid: CID) -> int | None:
        """Bytes of the block, or None. It is not read."""
        if not cid.fetchable:
            return None
        size = self._small.size(cid.digest)
        return self._packs.size(cid.digest) if size is None else size

    def sizes(self, cids: Sequence[CID]) -> dict[CID, int]:
        """Bytes of those that are here."""
        digests = [cid.digest for cid in cids if cid.fetchable]
        found = self._small.sizes(digests)
        found |= self._packs.sizes([digest for digest in digests if digest not in found])
        return {cid: found[cid.digest] for cid in cids if cid.fetchable and cid.digest in found}

    def get_small(self, cids: Sequence[CID]) -> dict[CID, bytes]:
        """Those that are kept with the small ones, their hashes checked."""
        found = self._small.get_all([cid.digest for cid in cids if cid.fetchable])
        blocks = {cid: found[cid.digest] for cid in cids if cid.fetchable and cid.digest in found}
        return {cid: block for cid, block in blocks.items() if cid.verify(block)}

    def has(self, cid: CID) -> bool:
        """Whether this one block is there; see `has_all` for what is below it."""
        return cid.fetchable and self.size(cid) is not None

    def delete(self, cid: CID) -> None:
        """Remove one block, pinned or not; one that is not there is no error. Raises ContentError."""
        cid.require_fetchable()
        with self._claims.lock:
            size = self.size(cid)
            if size is not None:
                with _refusals(f"block {cid} cannot be removed"):
                    self._small.remove([cid.digest])
                    self._packs.remove([cid.digest])
                self.removed(size)

    # --- DAGs

    def dag_stat(self, cid: CID, *, missing_limit: int = 1000) -> DagStat:
        """What the DAG below `cid` adds up to, and which of its blocks are missing; remembered once
        it is complete. Raises InvalidContent, ContentTooLarge."""
        with self._claims.lock:
            known, removals = self._complete.get(cid.v1), self._removals
        if known is None:
            known = dag_stat(cid, self, self.limits, missing_limit=missing_limit)
            with self._claims.lock:
                if known.complete and removals == self._removals:
                    if len(self._complete) >= _REMEMBERED:
                        del self._complete[next(iter(self._complete))]
                    self._complete[cid.v1] = known
        return known

    def known_complete(self, cid: CID) -> bool:
        """Whether `dag_stat` found the DAG below `cid` complete, and nothing was removed since."""
        with self._claims.lock:
            return cid.v1 in self._complete

    def forget_complete(self) -> None:
        """Remember no DAG as complete: a block of one has turned out to be missing."""
        with self._claims.lock:
            self.removed(0)

    def has_all(self, cid: CID) -> bool:
        """Whether the complete DAG below `cid` is here and within the limits."""
        if not self.has(cid):
            return False
        try:
            return self.dag_stat(cid, missing_limit=1).complete
        except (InvalidContent, ContentTooLarge):
            return False

    def sync(self, root: CID) -> None:
        """Have the disk hold what is here below `root`, and every pin: no power cut undoes them then.

        It waits for the disk, for each pack in which one of the blocks is. Raises ContentError when the disk
        refuses.
        """
        with _refusals(f"{root} cannot be kept safe from power cuts"):
            self._packs.sync_all(list(digests_below(self, root)))
            self._small.sync()
            self._pins.sync()

    # --- pins and other uses

    def pin(self, cid: CID, owner: str, expires: float | None = None) -> None:
        """Note that `owner` needs the DAG below `cid`; the same owner pinning again moves the expiry.

        Blocks that may have gone before this returns are not looked for: hold the root meanwhile.
        Raises ContentError when the disk refuses.
        """
        with _refusals(f"{cid} cannot be pinned"):
            self._pins.add(cid, owner, expires)
        self._claims.pinned(cid)

    def unpin(self, cid: CID, owner: str) -> bool:
        """Whether there was such a pin; there is none now. Raises ContentError when the disk refuses."""
        with _refusals(f"{cid} cannot be unpinned"):
            return self._pins.remove(cid, owner)

    def pins(self, cid: CID | None = None, *, now: float | None = None) -> list[Pin]:
        """The pins of one root, or all; with `now` (UNIX seconds) only those that have not expired."""
        return self._pins.find(cid, now)

    def holding(self, *roots: CID) -> AbstractContextManager[None]:
        """A block during which nothing below `roots` is collected, whether it is there or comes."""
        return self._claims.holding(roots)

    def batch(self) -> AbstractContextManager[Batch]:
        """A block during which no block that is put with the batch is collected."""
        return self._claims.batch()

    # --- room

    @property
    def used(self) -> int:
        """Bytes of all blocks."""
        return self._used

    @property
    def wants_room(self) -> bool:
        """Whether so much of the quota is used that a collection is due."""
        return self.quota is not None and self._used > self.quota * HIGH_WATER

    def collect(self, *, everything: bool = True, checkpoint: Callable[[], None] = lambda: None) -> Collected:
        """Remove blocks that no pin leads to and nobody uses: all of them, or, the oldest first, as many
        as it takes to use no more than the low-water mark of the quota.

        `checkpoint` is called now and then and may raise to stop. Raises ContentError.
        """
        with self._collecting:
            return self._collect(everything, checkpoint)

    def _collect(self, everything: bool, checkpoint: Callable[[], None]) -> Collected:
        excess = float("inf")
        if not everything:
            excess = 0 if self.quota is None else self._used - self.quota * LOW_WATER
        now = self._clock()
        with _refusals("blocks cannot be removed"):
            self._pins.remove_expired(now)
            return collect(
                self,
                self._claims,
                lambda: {pin.cid for pin in self._pins.find(None, now)},
                excess=excess,
                checkpoint=checkpoint,
            )

    def _make_room(self, size: int) -> None:
        assert self.quota is not None
        with self._collecting:
            if self._used + size > self.quota:
                self._collect(False, lambda: None)
        if self._used + size > self.quota:
            raise NoRoom(f"the block store is full: {self._used} of {self.quota} bytes are needed")

    def groups(self) -> Iterator[Group]:
        """All blocks, as their collector wants them."""
        yield from self._small.groups()
        yield from self._packs.groups()

    def removed(self, size: int) -> None:
        """Blocks of so many bytes are about to vanish; the lock of the claims is held."""
        self._used -= size
        self._removals += 1
        self._complete.clear()


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _refused(what: str, error: OSError | sqlite3.Error) -> ContentError:
    """What could not be done, and why; a NoRoom when the disk is full."""
    if isinstance(error, OSError):
        kind = NoRoom if error.errno in _NO_ROOM else ContentError
        return kind(f"{what}: {error.strerror or error}")
    full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return (NoRoom if full else ContentError)(f"{what}: {error}")


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Raises ContentError where the disk, or the database on it, refuses."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise _refused(what, error) from None
