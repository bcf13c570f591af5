"""What lies on the disk of a block store: looked at, damaged and lost behind its back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from bacalhau_p2p.ipfs.format.cid import CID


class Stored(NamedTuple):
    """Where one of the blocks of more than 16 KiB lies."""

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
    """Those that the table of a store, which may be open, says are there."""
    with _table(store) as db:
        rows = db.execute("SELECT digest, pack, start, size FROM blocks ORDER BY number").fetchall()
    return [Stored(digest, store / "packs" / str(pack), start, size) for digest, pack, start, size in rows]


def large_block(store: Path, cid: CID) -> Stored:
    (found,) = [stored for stored in large_blocks(store) if stored.digest == cid.digest]
    return found


def lose(store: Path, digest: bytes) -> None:
    """Have a block vanish, as if somebody had removed it."""
    with _table(store) as db:
        assert db.execute("DELETE FROM blocks WHERE digest = ?", (digest,)).rowcount == 1


def make_older(store: Path, cid: CID, stored: int) -> None:
    """As if a block had been stored at this time (UNIX seconds)."""
    with _table(store) as db:
        assert db.execute("UPDATE blocks SET stored = ? WHERE digest = ?", (stored, cid.digest)).rowcount == 1


@contextmanager
def _table(store: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(store / "packs.db", isolation_level=None)) as db:
        yield db
