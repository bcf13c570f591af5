"""An SQLite table of blocks by digest, which the garbage collector reads page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bacalhau_p2p.ipfs.store.garbage_collector import StoredBlock
from bacalhau_p2p.ipfs.store.shared_database import SharedDatabase

_PARAMETERS = 64
"""Blocks that are looked up by one statement."""
PAGE_SIZE = 500
"""Blocks that the collector reads and removes at a time, while other threads wait."""


class BlockTable(SharedDatabase):
    """May be called from any thread. Every method may raise sqlite3.Error."""

    def __init__(self, path: Path, columns: str, size: str) -> None:
        """`columns` come after the digest and the time of storing; `size` is an expression over them."""
        self._size = size
        super().__init__(
            path,
            "CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE,"
            f" stored INTEGER NOT NULL, {columns})",
        )

    def has(self, digest: bytes) -> bool:
        return self.size(digest) is not None

    def size(self, digest: bytes) -> int | None:
        row = self.row(self._size, digest)
        return None if row is None else int(row[0])

    def sizes(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """Bytes of those blocks that are present."""
        return dict(self.rows(self._size, digests))

    def total(self) -> int:
        """Bytes of all blocks."""
        with self.connection() as db:
            (total,) = db.execute(f"SELECT coalesce(sum({self._size}), 0) FROM blocks").fetchone()  # noqa: S608
        return int(total)

    def remove(self, digests: Iterable[bytes]) -> None:
        with self.transaction() as db:
            db.executemany("DELETE FROM blocks WHERE digest = ?", ((digest,) for digest in digests))

    def pages(self) -> Iterator[BlockPage]:
        """All blocks that are present when the iteration starts, some hundreds at a time."""
        with self.connection() as db:
            (last,) = db.execute("SELECT coalesce(max(number), 0) FROM blocks").fetchone()
        for first in range(0, last + 1, PAGE_SIZE):
            yield BlockPage(self, first, first + PAGE_SIZE)

    def between(self, first: int, end: int) -> list[tuple[bytes, int, int]]:
        """Digest, time of storing and size of the blocks with numbers from `first` up to `end`."""
        statement = f"SELECT digest, stored, {self._size} FROM blocks WHERE number >= ? AND number < ?"  # noqa: S608
        with self.connection() as db:
            return db.execute(statement, (first, end)).fetchall()

    # --- for subclasses, which know the columns

    def row(self, columns: str, digest: bytes) -> tuple[Any, ...] | None:
        """Columns of one block, None when it is absent."""
        with self.connection() as db:
            row = db.execute(f"SELECT {columns} FROM blocks WHERE digest = ?", (digest,)).fetchone()  # noqa: S608
        return None if row is None else tuple(row)

    def rows(self, columns: str, digests: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        """The digest and other columns of those blocks that are present."""
        for start in range(0, len(digests), _PARAMETERS):
            some = digests[start : start + _PARAMETERS]
            # Padded, so that SQLite compiles few different statements; no block has an empty digest.
            padded = [*some, *[b""] * (-len(some) % 16)]
            marks = f"?{', ?' * (len(padded) - 1)}"
            statement = f"SELECT digest, {columns} FROM blocks WHERE digest IN ({marks})"  # noqa: S608
            with self.connection() as db:
                found = db.execute(statement, padded).fetchall()
            yield from found


class BlockPage:
    """Blocks with consecutive numbers, for the garbage collector."""

    def __init__(self, table: BlockTable, first: int, end: int) -> None:
        self._table = table
        self._range = first, end

    def blocks(self) -> Iterator[StoredBlock]:
        return (StoredBlock(*row) for row in self._table.between(*self._range))

    def remove(self, digests: list[bytes]) -> None:
        self._table.remove(digests)
