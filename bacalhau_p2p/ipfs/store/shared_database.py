"""An SQLite file that several threads use through one connection."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bacalhau_p2p.ipfs.store.fsync import sync_path
from bacalhau_p2p.runtime.database import all_or_nothing

CACHE_KIB = 512
"""KiB of the file that SQLite keeps in memory itself. The kernel keeps what else is used."""


class SharedDatabase:
    """May be called from any thread. Every method may raise sqlite3.Error.

    A crash leaves a transaction whole or undone; a power cut may undo the latest ones until `sync`.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self._mutex = threading.Lock()
        self._path = path
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(schema)
            sync_path(path.parent)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def sync(self) -> None:
        """Wait until no power cut can undo what was committed. Raises OSError.

        Only the journal is synced: SQLite syncs the database file itself when it copies the journal there.
        """
        with suppress(FileNotFoundError):
            sync_path(self._path.with_name(f"{self._path.name}-wal"))

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """The connection, in autocommit mode, for this thread alone."""
        with self._mutex:
            yield self._db

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A block whose statements take effect together or not at all."""
        with self._mutex, all_or_nothing(self._db):
            yield self._db
