"""Blocks of a few KiB, in one SQLite file: a file system takes as long to make a file as to write a
megabyte, and a folder of many small files is many small blocks."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bacalhau_p2p.content.collecting import StoredBlock
from bacalhau_p2p.content.syncing import sync_database, sync_path

MAX_SMALL = 16 * 1024
"""Bytes of the largest block that is kept here."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS blocks (
    number INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    stored INTEGER NOT NULL,
    body BLOB NOT NULL
);
"""
_PARAMETERS = 64
"""Blocks that are looked up by one statement."""
_GROUP = 2000
"""Blocks that are looked through at one time, with others waiting."""


class SmallBlocks:
    """May be called from any thread. Every method may raise sqlite3.Error.

    A write is whole or not there after a crash; a power cut may undo the latest ones.
    """

    def __init__(self, path: Path) -> None:
        self._mutex = threading.Lock()
        self._path = path
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        sync_path(path.parent)

    def close(self) -> None:
        self._db.close()

    def sync(self) -> None:
        """No power cut undoes what was written before. Raises OSError."""
        sync_database(self._path)

    def has(self, digest: bytes) -> bool:
        return self._one("SELECT 1 FROM blocks WHERE digest = ?", digest) is not None

    def put_all(self, blocks: Sequence[tuple[bytes, bytes]], stored: int) -> int:
        """Store digests with their bodies, all in one transaction, and return the bytes of those that were
        not there yet. `stored` is in UNIX seconds."""
        statement, fresh = "INSERT OR IGNORE INTO blocks (digest, stored, body) VALUES (?, ?, ?)", 0
        with self._transaction():
            for digest, body in blocks:
                if self._db.execute(statement, (digest, stored, body)).rowcount > 0:
                    fresh += len(body)
        return fresh

    def get(self, digest: bytes) -> bytes | None:
        body = self._one("SELECT body FROM blocks WHERE digest = ?", digest)
        return body if isinstance(body, bytes) else None

    def get_all(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those that are there."""
        return dict(self._several("digest, body", digests))

    def sizes(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """Of those that are there."""
        return dict(self._several("digest, length(body)", digests))

    def size(self, digest: bytes) -> int | None:
        size = self._one("SELECT length(body) FROM blocks WHERE digest = ?", digest)
        return size if isinstance(size, int) else None

    def remove(self, digests: Iterable[bytes]) -> None:
        with self._transaction():
            self._db.executemany("DELETE FROM blocks WHERE digest = ?", ((d,) for d in digests))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._mutex:
            self._db.execute("BEGIN")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite may have rolled back by itself
                    self._db.execute("ROLLBACK")
                raise

    def groups(self) -> Iterator[SmallGroup]:
        """All that were there on the first step, some thousands at a time."""
        with self._mutex:
            (last,) = self._db.execute("SELECT coalesce(max(number), 0) FROM blocks").fetchone()
        for first in range(0, last + 1, _GROUP):
            yield SmallGroup(self, first, first + _GROUP)

    def between(self, first: int, end: int) -> list[tuple[bytes, int, int]]:
        statement = "SELECT digest, stored, length(body) FROM blocks WHERE number >= ? AND number < ?"
        with self._mutex:
            return self._db.execute(statement, (first, end)).fetchall()

    def _several(self, columns: str, digests: Sequence[bytes]) -> Iterator[tuple[bytes, Any]]:
        for start in range(0, len(digests), _PARAMETERS):
            some = digests[start : start + _PARAMETERS]
            # Few texts, so that SQLite compiles each once; nothing has an empty digest.
            filled = [*some, *[b""] * (-len(some) % 16)]
            statement = f"SELECT {columns} FROM blocks WHERE digest IN (?{', ?' * (len(filled) - 1)})"  # noqa: S608
            with self._mutex:
                rows = self._db.execute(statement, filled).fetchall()
            yield from rows

    def _one(self, statement: str, digest: bytes) -> object:
        with self._mutex:
            row = self._db.execute(statement, (digest,)).fetchone()
        return None if row is None else row[0]


class SmallGroup:
    """Neighbours in the file, as their collector sees them."""

    def __init__(self, blocks: SmallBlocks, first: int, end: int) -> None:
        self._blocks = blocks
        self._range = first, end

    def blocks(self) -> Iterator[StoredBlock]:
        return (StoredBlock(*row) for row in self._blocks.between(*self._range))

    def remove(self, digests: list[bytes]) -> None:
        self._blocks.remove(digests)
