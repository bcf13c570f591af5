"""The files of a block store: blocks in them are found, damaged and removed without the store noticing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from bacalhau_p2p.ipfs.format.cid import CID


class Stored(NamedTuple):
    """Where a block of more than 16 KiB is."""

    digest: bytes
    pack: Path
    start: int
    size: int

    def read(self) -> bytes:
        with self.pack.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)

    def overwrite(self, body: bytes) -> None:
        with self.pack.open("r+b") as file:
            file.seek(self.start)
            file.write(body)


def large_blocks(store: Path) -> list[Stored]:
    """The larger blocks that are in the table of a store, which may be open."""
    with _table(store) as db:
        rows = db.execute("SELECT digest, pack, start, size FROM blocks ORDER BY number").fetchall()
    return [Stored(digest, store / "packs" / str(pack), start, size) for digest, pack, start, size in rows]


def large_block(store: Path, cid: CID) -> Stored:
    (found,) = [stored for stored in large_blocks(store) if stored.digest == cid.digest]
    return found


def damage_small_block(store: Path, cid: CID) -> None:
    """Replace a small block with one zero byte."""
    with _table(store, "small") as db:
        assert db.execute("UPDATE blocks SET body = x'00' WHERE digest = ?", (cid.digest,)).rowcount == 1


def lose_large_block(store: Path, cid: CID) -> None:
    """Remove a larger block from the table."""
    with _table(store) as db:
        assert db.execute("DELETE FROM blocks WHERE digest = ?", (cid.digest,)).rowcount == 1


def set_stored_time(store: Path, cid: CID, stored: int) -> None:
    """Change when a larger block was stored (UNIX seconds)."""
    with _table(store) as db:
        assert db.execute("UPDATE blocks SET stored = ? WHERE digest = ?", (stored, cid.digest)).rowcount == 1


@contextmanager
def _table(store: Path, name: str = "packs") -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(store / f"{name}.db", isolation_level=None)) as db:
        yield db
