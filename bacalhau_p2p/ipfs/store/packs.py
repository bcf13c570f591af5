"""Larger blocks, one after the other in files of some ten megabytes: packs.

A file for each block would be simpler. But creating a file takes as long as writing 100 KiB, ten times as
long on a file system from which much was removed lately (ext4 checks each freed inode), and syncing a DAG
would take one fsync a block.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sqlite3
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bacalhau_p2p.ipfs.store.block_table import BlockTable
from bacalhau_p2p.ipfs.store.fsync import sync_path

PACK_SIZE = 64 * 1024 * 1024
"""Bytes after which the next pack begins. Syncing a block also waits for the rest of its pack."""
ALIGNMENT = 4096
"""Every block starts at a multiple of this, so that its space can be returned to the file system."""

_WRITE_BATCH = 64
"""Blocks that are written at a time, while other threads wait."""
_ZEROS = bytes(ALIGNMENT)


class _Extent(NamedTuple):
    """Where a block is."""

    pack: int
    start: int
    size: int

    @property
    def end(self) -> int:
        """Where the next block may start."""
        return _aligned(self.start + self.size)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


class Packs(BlockTable):
    """May be called from any thread. Every method may raise OSError and sqlite3.Error.

    A block enters the table after it is written, so that a killed process leaves it whole or not at all;
    bytes after the last block in the table are overwritten. The space of removed blocks is freed at once
    where the file system can punch holes (Linux), otherwise with the last block of the pack.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        """`path` is that of the table, `folder` that of the packs; both are created if they are missing.

        Raises FileNotFoundError when there are packs but no table: without it they cannot be read.
        """
        if not path.exists() and folder.exists() and any(folder.iterdir()):
            raise FileNotFoundError(errno.ENOENT, "the table of its packs is missing", str(path))
        super().__init__(path, "size INTEGER NOT NULL, pack INTEGER NOT NULL, start INTEGER NOT NULL", "size")
        folder.mkdir(exist_ok=True)
        self._folder = str(folder)
        self._writing = threading.Lock()
        self._pack = 0
        self._file = -1
        self._end = 0
        self._blocks = Counter[int]()
        """The number of blocks in each pack; only the current pack may have none."""
        self.lost_blocks = False
        """Whether packs were shorter on opening than the table says, so that `total` is less than before."""
        try:
            self._recover()
        except BaseException:
            super().close()
            raise

    def _recover(self) -> None:
        """Remove blocks lost in a power cut from the table, and packs without blocks from the folder."""
        ends: dict[int, int] = {}
        with self.transaction() as db:
            for pack, end in db.execute(
                "SELECT pack, max(start + size) FROM blocks GROUP BY pack"
            ).fetchall():
                try:
                    size = os.stat(self._path_of(pack)).st_size  # noqa: PTH116
                except FileNotFoundError:
                    size = 0
                if end > size:
                    self.lost_blocks = True
                    db.execute("DELETE FROM blocks WHERE pack = ? AND start + size > ?", (pack, size))
            for pack, count, end in db.execute(
                "SELECT pack, count(*), max(start + size) FROM blocks GROUP BY pack"
            ):
                self._blocks[pack], ends[pack] = count, end
        for name in os.listdir(self._folder):  # noqa: PTH208
            if not name.isdecimal() or int(name) not in ends:
                os.unlink(f"{self._folder}/{name}")  # noqa: PTH108
        self._pack = max(ends, default=1)
        self._end = _aligned(ends.get(self._pack, 0))

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        super().close()

    def put_all(self, blocks: Sequence[tuple[bytes, bytes]], stored: int) -> int:
        """Store digests with their bodies; returns the bytes of those that were new.

        `stored` is in UNIX seconds. After an error, some are stored.
        """
        size = 0
        for first in range(0, len(blocks), _WRITE_BATCH):
            some = dict(blocks[first : first + _WRITE_BATCH])
            with self._writing:
                present = self.sizes(list(some))
                new = [(digest, body) for digest, body in some.items() if digest not in present]
                if new:
                    self._store(new, stored)
                    size += sum(len(body) for _, body in new)
        return size

    def _store(self, blocks: Sequence[tuple[bytes, bytes]], stored: int) -> None:
        end = self._open_for(sum(len(body) for _, body in blocks))
        extents: list[_Extent] = []
        parts: list[bytes] = []
        for _, body in blocks:
            extents.append(extent := _Extent(self._pack, end, len(body)))
            parts += (body, _ZEROS[: extent.end - extent.start - extent.size])
            end = extent.end
        try:
            self._write(parts, self._end)
            with self.transaction() as db:
                db.executemany(
                    "INSERT INTO blocks (digest, stored, size, pack, start) VALUES (?, ?, ?, ?, ?)",
                    (
                        (digest, stored, extent.size, extent.pack, extent.start)
                        for (digest, _), extent in zip(blocks, extents, strict=True)
                    ),
                )
        except (OSError, sqlite3.Error):
            os.ftruncate(self._file, self._end)  # on a full disk, others may need the space
            raise
        self._end = end
        self._blocks[self._pack] += len(blocks)

    def _open_for(self, size: int) -> int:
        """Open a pack with space for `size` bytes; returns where they start."""
        if self._end and self._end + size > PACK_SIZE:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
            self._delete_if_empty(self._pack)
            self._pack, self._end = self._pack + 1, 0
        if self._file < 0:
            self._file = os.open(self._path_of(self._pack), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._file, self._end)
        return self._end

    def _write(self, parts: Sequence[bytes], start: int) -> None:
        written = os.pwritev(self._file, parts, start)
        if written < sum(map(len, parts)):  # the disk is nearly full, or these are many bytes
            rest = memoryview(b"".join(parts))[written:]
            start += written
            while rest:
                written = os.pwrite(self._file, rest, start)
                rest, start = rest[written:], start + written

    def get(self, digest: bytes) -> bytes | None:
        """The block as it is on the disk: a part of it or nothing when its pack is damaged."""
        row = self.row("pack, start, size", digest)
        if row is None:
            return None
        extent = _Extent(*row)
        try:
            file = os.open(self._path_of(extent.pack), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            block = os.pread(file, extent.size, extent.start)
            while len(block) < extent.size:
                more = os.pread(file, extent.size - len(block), extent.start + len(block))
                if not more:
                    break
                block += more
        finally:
            os.close(file)
        return block

    def remove(self, digests: Iterable[bytes]) -> None:
        digests = list(digests)
        with self._writing:
            extents = sorted(_Extent(*columns) for _, *columns in self.rows("pack, start, size", digests))
            super().remove(digests)
            by_pack = defaultdict[int, list[_Extent]](list)
            for extent in extents:
                by_pack[extent.pack].append(extent)
            for pack, some in by_pack.items():
                self._blocks[pack] -= len(some)
                if self._blocks[pack] or pack == self._pack:
                    with suppress(FileNotFoundError):
                        self._punch(pack, some)
                else:
                    self._delete_if_empty(pack)

    def _delete_if_empty(self, pack: int) -> None:
        """Delete a pack without blocks."""
        if not self._blocks[pack]:
            del self._blocks[pack]
            with suppress(FileNotFoundError):
                os.unlink(self._path_of(pack))  # noqa: PTH108

    def _punch(self, pack: int, extents: Sequence[_Extent]) -> None:
        file = os.open(self._path_of(pack), os.O_WRONLY | os.O_CLOEXEC)
        try:
            start, end = extents[0].start, extents[0].end
            for extent in extents[1:]:
                if extent.start != end:
                    punch_hole(file, start, end - start)
                    start = extent.start
                end = extent.end
            punch_hole(file, start, end - start)
        finally:
            os.close(file)

    def sync_all(self, digests: Sequence[bytes]) -> None:
        """Wait until no power cut can undo that these blocks, as far as they are present, are stored."""
        packs = {pack for _, pack in self.rows("pack", digests)}
        for pack in packs:
            with suppress(FileNotFoundError):
                sync_path(self._path_of(pack))
        if packs:
            sync_path(self._folder)
            self.sync()

    def _path_of(self, pack: int) -> str:
        return f"{self._folder}/{pack}"


_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # of <linux/falloc.h>
_libc = ctypes.CDLL(None)
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch_hole(file: int, start: int, size: int) -> None:
    """Return these bytes of a file to the file system, if it supports that; they read as zeros then."""
    if _fallocate is not None:
        _fallocate(file, _KEEP_SIZE | _PUNCH_HOLE, start, size)
