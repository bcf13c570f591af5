"""An SQLite table of blocks by digest, and how a collector goes through it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bacalhau_p2p.ipfs.store.collector import StoredBlock
from bacalhau_p2p.ipfs.store.fsync import sync_database, sync_path
from bacalhau_p2p.runtime.database import all_or_nothing

_PARAMETERS = 64
"""Blocks that are looked up by one statement."""
GROUP = 500
"""Blocks that are looked through at one time, with others waiting."""


class BlockTable:
    """May be called from any thread. Every method may raise sqlite3.Error.

    A write is whole or not there after a crash; a power cut may undo the latest ones.
    """

    def __init__(self, path: Path, columns: str, size: str) -> None:
        """`columns` are those behind the digest and the time of storing, `size` is an expression of them."""
        self._mutex = threading.Lock()
        self._path = path
        self._size = size
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE,"
            f" stored INTEGER NOT NULL, {columns})"
        )
        sync_path(path.parent)

    def close(self) -> None:
        self._db.close()

    def sync(self) -> None:
        """No power cut undoes what was written before. Raises OSError."""
        sync_database(self._path)

    def has(self, digest: bytes) -> bool:
        return self.size(digest) is not None

    def size(self, digest: bytes) -> int | None:
        row = self.row(self._size, digest)
        return None if row is None else int(row[0])

    def sizes(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """Of those that are there."""
        return dict(self.rows(self._size, digests))

    def total(self) -> int:
        """Bytes of all blocks."""
        with self._mutex:
            (total,) = self._db.execute(f"SELECT coalesce(sum({self._size}), 0) FROM blocks").fetchone()  # noqa: S608
        return int(total)

    def remove(self, digests: Iterable[bytes]) -> None:
        with self.transaction() as db:
            db.executemany("DELETE FROM blocks WHERE digest = ?", ((digest,) for digest in digests))

    def groups(self) -> Iterator[BlockGroup]:
        """All that were there on the first step, some hundreds at a time."""
        with self._mutex:
            (last,) = self._db.execute("SELECT coalesce(max(number), 0) FROM blocks").fetchone()
        for first in range(0, last + 1, GROUP):
            yield BlockGroup(self, first, first + GROUP)

    def between(self, first: int, end: int) -> list[tuple[bytes, int, int]]:
        """Digest, time of storing and size of those with such numbers."""
        statement = f"SELECT digest, stored, {self._size} FROM blocks WHERE number >= ? AND number < ?"  # noqa: S608
        with self._mutex:
            return self._db.execute(statement, (first, end)).fetchall()

    # --- for those who know the columns

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A block whose statements take effect together, or none of them."""
        with self._mutex, all_or_nothing(self._db):
            yield self._db

    def row(self, columns: str, digest: bytes) -> tuple[Any, ...] | None:
        """Columns of one block, None when it is not there."""
        with self._mutex:
            row = self._db.execute(f"SELECT {columns} FROM blocks WHERE digest = ?", (digest,)).fetchone()  # noqa: S608
        return None if row is None else tuple(row)

    def rows(self, columns: str, digests: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        """The digest and other columns of those that are there."""
        for start in range(0, len(digests), _PARAMETERS):
            some = digests[start : start + _PARAMETERS]
            # Few texts, so that SQLite compiles each once; nothing has an empty digest.
            filled = [*some, *[b""] * (-len(some) % 16)]
            marks = f"?{', ?' * (len(filled) - 1)}"
            statement = f"SELECT digest, {columns} FROM blocks WHERE digest IN ({marks})"  # noqa: S608
            with self._mutex:
                found = self._db.execute(statement, filled).fetchall()
            yield from found


class BlockGroup:
    """Neighbours in a table, as their collector sees them."""

    def __init__(self, table: BlockTable, first: int, end: int) -> None:
        self._table = table
        self._range = first, end

    def blocks(self) -> Iterator[StoredBlock]:
        return (StoredBlock(*row) for row in self._table.between(*self._range))

    def remove(self, digests: list[bytes]) -> None:
        self._table.remove(digests)
