"""Blocks of more than a few KiB, one behind the other in files of some ten megabytes: packs.

A file for each block would be simpler. But making one takes as long as writing 100 KiB, on a file system
from which much was removed lately ten times as long (ext4 looks at each inode that was freed), and what is
to outlive a power cut would be as many waits for the disk.
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
"""Bytes after which a further pack is begun. Whoever syncs a block waits for what else is in its pack."""
ALIGNMENT = 4096
"""Every block begins at a multiple of this, so that its room can be given back to the file system."""

_TOGETHER = 64
"""Blocks that are written at one time, with others waiting."""
_ZEROS = bytes(ALIGNMENT)


class _Room(NamedTuple):
    """Where a block is."""

    pack: int
    start: int
    size: int

    @property
    def end(self) -> int:
        """With what fills it up to where the next one may begin."""
        return _aligned(self.start + self.size)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


class Packs(BlockTable):
    """May be called from any thread. Besides sqlite3.Error, every method may raise OSError.

    A block is noted once it is written: a process that dies leaves it whole or not at all. What is behind
    the last one that is noted is overwritten. The room of removed blocks is given back at once where the
    file system can punch holes (Linux), or else when the last block of a pack has gone.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        """`path` of the table, `folder` of the packs; both are made when they are not there.

        Raises FileNotFoundError when there are packs and no table, without which they are worth nothing.
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
        """How many blocks each pack has; those with none are gone, but for the one that is written."""
        self.lost_some = False
        """Whether packs turned out to be shorter than they were: what `total` says is less than before."""
        try:
            self._recover()
        except BaseException:
            super().close()
            raise

    def _recover(self) -> None:
        """Forget blocks that a power cut took, and remove packs of which none is left."""
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
                    self.lost_some = True
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
        """Store digests with their bodies and return the bytes of those that were not there yet. `stored`
        is in UNIX seconds. After an error, some are stored."""
        size = 0
        for first in range(0, len(blocks), _TOGETHER):
            some = dict(blocks[first : first + _TOGETHER])
            with self._writing:
                held = self.sizes(list(some))
                fresh = [(digest, body) for digest, body in some.items() if digest not in held]
                if fresh:
                    self._store(fresh, stored)
                    size += sum(len(body) for _, body in fresh)
        return size

    def _store(self, blocks: Sequence[tuple[bytes, bytes]], stored: int) -> None:
        end = self._open_for(sum(len(body) for _, body in blocks))
        rooms: list[_Room] = []
        parts: list[bytes] = []
        for _, body in blocks:
            rooms.append(room := _Room(self._pack, end, len(body)))
            parts += (body, _ZEROS[: room.end - room.start - room.size])
            end = room.end
        try:
            self._write(parts, self._end)
            with self.transaction() as db:
                db.executemany(
                    "INSERT INTO blocks (digest, stored, size, pack, start) VALUES (?, ?, ?, ?, ?)",
                    (
                        (digest, stored, room.size, room.pack, room.start)
                        for (digest, _), room in zip(blocks, rooms, strict=True)
                    ),
                )
        except (OSError, sqlite3.Error):
            os.ftruncate(self._file, self._end)  # on a full disk, others may need what it had taken
            raise
        self._end = end
        self._blocks[self._pack] += len(blocks)

    def _open_for(self, size: int) -> int:
        """Have a pack open with room for so many bytes, and return where they are to begin."""
        if self._end and self._end + size > PACK_SIZE:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
            self._let_go(self._pack)
            self._pack, self._end = self._pack + 1, 0
        if self._file < 0:
            self._file = os.open(self._path_of(self._pack), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._file, self._end)
        return self._end

    def _write(self, parts: Sequence[bytes], start: int) -> None:
        written = os.pwritev(self._file, parts, start)
        if written < sum(map(len, parts)):  # the disk is all but full, or it was a great deal
            rest = memoryview(b"".join(parts))[written:]
            start += written
            while rest:
                written = os.pwrite(self._file, rest, start)
                rest, start = rest[written:], start + written

    def get(self, digest: bytes) -> bytes | None:
        """The block as it lies there; of one whose pack was damaged, some of it or nothing."""
        row = self.row("pack, start, size", digest)
        if row is None:
            return None
        room = _Room(*row)
        try:
            file = os.open(self._path_of(room.pack), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            block = os.pread(file, room.size, room.start)
            while len(block) < room.size:
                more = os.pread(file, room.size - len(block), room.start + len(block))
                if not more:
                    break
                block += more
        finally:
            os.close(file)
        return block

    def remove(self, digests: Iterable[bytes]) -> None:
        digests = list(digests)
        with self._writing:
            rooms = sorted(_Room(*place) for _, *place in self.rows("pack, start, size", digests))
            super().remove(digests)
            by_pack = defaultdict[int, list[_Room]](list)
            for room in rooms:
                by_pack[room.pack].append(room)
            for pack, some in by_pack.items():
                self._blocks[pack] -= len(some)
                if self._blocks[pack] or pack == self._pack:
                    with suppress(FileNotFoundError):
                        self._punch(pack, some)
                else:
                    self._let_go(pack)

    def _let_go(self, pack: int) -> None:
        """Remove a pack if no block is left in it."""
        if not self._blocks[pack]:
            del self._blocks[pack]
            with suppress(FileNotFoundError):
                os.unlink(self._path_of(pack))  # noqa: PTH108

    def _punch(self, pack: int, rooms: Sequence[_Room]) -> None:
        file = os.open(self._path_of(pack), os.O_WRONLY | os.O_CLOEXEC)
        try:
            begun, end = rooms[0].start, rooms[0].end
            for room in rooms[1:]:
                if room.start != end:
                    punch_hole(file, begun, end - begun)
                    begun = room.start
                end = room.end
            punch_hole(file, begun, end - begun)
        finally:
            os.close(file)

    def sync_all(self, digests: Sequence[bytes]) -> None:
        """No power cut takes those of these blocks that are here any more."""
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
    """Give these bytes of a file back to the file system, if it can; they are zeros from then on."""
    if _fallocate is not None:
        _fallocate(file, _KEEP_SIZE | _PUNCH_HOLE, start, size)
