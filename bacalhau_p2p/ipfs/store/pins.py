"""Who needs which root, and until when: an SQLite file, which survives crashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store.shared_database import SharedDatabase

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


class Pins(SharedDatabase):
    """The pins of a block store, and a few numbers that it saves. May be called from any thread.

    Every method may raise sqlite3.Error.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)

    def add(self, cid: CID, owner: str, expires: float | None) -> None:
        """Add a pin; a second one of the same owner replaces its expiry."""
        with self.connection() as db:
            db.execute(
                "INSERT INTO pins (cid, owner, expires) VALUES (?, ?, ?)"
                " ON CONFLICT (cid, owner) DO UPDATE SET expires = excluded.expires",
                (cid.v1.binary, owner, expires),
            )

    def remove(self, cid: CID, owner: str) -> bool:
        """Remove a pin; returns whether there was one."""
        with self.connection() as db:
            removed = db.execute("DELETE FROM pins WHERE cid = ? AND owner = ?", (cid.v1.binary, owner))
            return removed.rowcount > 0

    def remove_expired(self, now: float) -> None:
        with self.connection() as db:
            db.execute("DELETE FROM pins WHERE expires <= ?", (now,))

    def find(self, cid: CID | None, now: float | None) -> list[Pin]:
        """The pins of one root, or of all; with `now`, only those that have not expired."""
        query = "SELECT cid, owner, expires FROM pins WHERE (:cid IS NULL OR cid = :cid)"
        query += " AND (:now IS NULL OR expires IS NULL OR expires > :now) ORDER BY cid, owner"
        with self.connection() as db:
            wanted = {"cid": None if cid is None else cid.v1.binary, "now": now}
            rows = db.execute(query, wanted).fetchall()
        return [Pin(CID(binary), owner, expires) for binary, owner, expires in rows]

    def roots(self, now: float, owners: Sequence[str] = ("*",)) -> list[CID]:
        """What is pinned, each root once, by owners that match one of these GLOB patterns."""
        query = "SELECT DISTINCT cid FROM pins WHERE (expires IS NULL OR expires > ?)"
        query += f" AND ({' OR '.join(['owner GLOB ?'] * len(owners))})"
        with self.connection() as db:
            rows = db.execute(query, (now, *owners)).fetchall()
        return [CID(binary) for (binary,) in rows]

    def save_number(self, name: str, value: int) -> None:
        with self.connection() as db:
            db.execute("INSERT OR REPLACE INTO notes (name, value) VALUES (?, ?)", (name, value))

    def take_number(self, name: str) -> int | None:
        """Remove and return what was saved under this name."""
        with self.connection() as db:
            row = db.execute("DELETE FROM notes WHERE name = ? RETURNING value", (name,)).fetchone()
        return None if row is None else int(row[0])
