"""Opens a component's SQLite database, migrates it, and writes to it in transactions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bacalhau_p2p.errors import SettingsError, StoreFailed

CACHE_KIB = 1024
"""KiB of the file that SQLite keeps in memory itself. The kernel keeps what else is used."""

Migration = str | Callable[[sqlite3.Connection], None]
"""SQL statements, or a function, that bring the schema from one version to the next."""


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode. Raises sqlite3.Error."""
    return sqlite3.connect(path, isolation_level=None)


def open_database(
    path: Path, migrations: Sequence[Migration], *, first_version: int = 1
) -> sqlite3.Connection:
    """Open or create the file, and bring its schema to the latest version.

    The first migration makes `first_version` out of nothing, and each further one the next version.
    The connection is in autocommit mode, and the journal in WAL mode. Write within `transaction`.
    Raises SettingsError if the file is no database of this program, or of a later version, or of one before
    the first; StoreFailed.
    """
    try:
        _make_private(path)
        db = connect(path)
    except (sqlite3.Error, OSError) as error:
        raise SettingsError(f"{path} cannot be opened: {error}") from error
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version >= first_version + len(migrations):
            raise SettingsError(f"{path} was written by a later version of bacalhau_p2p (schema {version})")
        if 0 < version < first_version:
            raise SettingsError(
                f"{path} was written by an earlier version of bacalhau_p2p (schema {version}), and this one "
                "cannot read it; move the file away to start with an empty one"
            )
        for number, migration in enumerate(migrations, start=first_version):
            if number <= version:
                continue
            with transaction(db):
                if isinstance(migration, str):
                    run_statements(db, migration)
                else:
                    migration(db)
                db.execute(f"PRAGMA user_version={number}")
    except sqlite3.DatabaseError as error:
        db.close()
        if _is_disk_failure(error):
            raise StoreFailed(f"{path} cannot be used: {error}") from error
        raise SettingsError(f"{path} is not a database of this program: {error}") from error
    except (SettingsError, StoreFailed):
        db.close()
        raise
    return db


def _make_private(path: Path) -> None:
    """Only the owner may read the file, and its log and index, to which SQLite gives the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for each in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        with suppress(FileNotFoundError):
            each.chmod(0o600)


@contextmanager
def transaction(db: sqlite3.Connection, *, power_safe: bool = True) -> Iterator[None]:
    """Commit everything that the block writes, or nothing if it raises.

    A transaction that is not `power_safe` survives a crash of this process. It survives a power cut only
    once a later, power-safe one is committed. It takes a thirtieth of the time.
    Raises StoreFailed if the disk fails, most often because it is full. Then nothing is committed.
    """
    try:
        db.execute(f"PRAGMA synchronous={'FULL' if power_safe else 'NORMAL'}")
        with all_or_nothing(db):
            yield
    except sqlite3.OperationalError as error:
        if not _is_disk_failure(error):
            raise
        (_, _, path) = db.execute("PRAGMA database_list").fetchone()
        raise StoreFailed(f"{path} cannot be written: {error}") from error


@contextmanager
def rehearsal(db: sqlite3.Connection) -> Iterator[None]:
    """Undo what the block writes, whether it raises or not. Raises as `transaction`."""

    class _Rehearsed(Exception):
        """The block has ended well."""

    try:
        with transaction(db, power_safe=False):
            yield
            raise _Rehearsed
    except _Rehearsed:
        pass


@contextmanager
def all_or_nothing(db: sqlite3.Connection) -> Iterator[None]:
    """Commit everything that the block writes, or nothing if it raises. Raises sqlite3.Error."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite may have rolled back by itself
            db.execute("ROLLBACK")
        raise


def _is_disk_failure(error: sqlite3.Error) -> bool:
    """Whether the disk failed. SQLITE_ERROR means that our own statement is wrong."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR


def write_rows(db: sqlite3.Connection, statement: str, rows: Sequence[Sequence[object]]) -> None:
    """Run a statement for each row. Most commits write to few of the tables."""
    if rows:
        db.executemany(statement, rows)


def run_statements(db: sqlite3.Connection, script: str) -> None:
    """Run SQL statements within the open transaction. `executescript` would commit on its own."""
    for statement in script.split(";"):
        if statement.strip():
            db.execute(statement)
