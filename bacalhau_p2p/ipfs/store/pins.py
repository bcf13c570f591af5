"""Who needs which root, and until when: SQLite, so that it outlives every crash."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store.fsync import sync_database, sync_path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pins (
    cid BLOB NOT NULL,
    owner TEXT NOT NULL,
    expires REAL,
    PRIMARY KEY (cid, owner)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Pin:
    """`owner` needs everything below `cid` until `expires` (UNIX seconds), or until it unpins (None)."""

    cid: CID
    owner: str
    expires: float | None


class Pins:
    """The pins of one block store, and a few numbers that it notes. May be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Raises sqlite3.Error."""
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

    def add(self, cid: CID, owner: str, expires: float | None) -> None:
        """The same owner pinning again moves the expiry."""
        with self._mutex:
            self._db.execute(
                "INSERT INTO pins (cid, owner, expires) VALUES (?, ?, ?)"
                " ON CONFLICT (cid, owner) DO UPDATE SET expires = excluded.expires",
                (cid.v1.binary, owner, expires),
            )

    def remove(self, cid: CID, owner: str) -> bool:
        """Whether there was such a pin."""
        with self._mutex:
            gone = self._db.execute("DELETE FROM pins WHERE cid = ? AND owner = ?", (cid.v1.binary, owner))
            return gone.rowcount > 0

    def remove_expired(self, now: float) -> None:
        with self._mutex:
            self._db.execute("DELETE FROM pins WHERE expires <= ?", (now,))

    def find(self, cid: CID | None, now: float | None) -> list[Pin]:
        """The pins of one root, or all; with `now` only those that have not expired."""
        query = "SELECT cid, owner, expires FROM pins WHERE (?1 IS NULL OR cid = ?1)"
        query += " AND (?2 IS NULL OR expires IS NULL OR expires > ?2) ORDER BY cid, owner"
        with self._mutex:
            rows = self._db.execute(query, (None if cid is None else cid.v1.binary, now)).fetchall()
        return [Pin(CID(binary), owner, expires) for binary, owner, expires in rows]

    def note(self, name: str, value: int) -> None:
        with self._mutex:
            self._db.execute("INSERT OR REPLACE INTO notes (name, value) VALUES (?, ?)", (name, value))

    def take_note(self, name: str) -> int | None:
        """What was noted under this name, which is forgotten."""
        with self._mutex:
            row = self._db.execute("DELETE FROM notes WHERE name = ? RETURNING value", (name,)).fetchone()
        return None if row is None else int(row[0])
