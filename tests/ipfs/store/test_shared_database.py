"""SQLite files that threads share, and how they reach the disk: `shared_database` and `fsync`."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from bacalhau_p2p.ipfs.store.fsync import sync_path
from bacalhau_p2p.ipfs.store.shared_database import SharedDatabase

SCHEMA = "CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY)"


@pytest.fixture
def database(tmp_path):
    with closing(SharedDatabase(tmp_path / "x.db", SCHEMA)) as database:
        yield database


def count(database: SharedDatabase) -> int:
    with database.connection() as db:
        return int(db.execute("SELECT count(*) FROM numbers").fetchone()[0])


def test_what_was_written_is_there_after_opening_it_again(tmp_path):
    for rows in range(2):
        with closing(SharedDatabase(tmp_path / "x.db", SCHEMA)) as database:
            assert count(database) == rows
            with database.transaction() as db:
                db.execute("INSERT INTO numbers VALUES (?)", (rows,))


def test_a_failed_transaction_leaves_nothing(database):
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as db:
        db.executemany("INSERT INTO numbers VALUES (?)", [(1,), (1,)])
    assert count(database) == 0


def test_threads_write_one_after_the_other(database):
    def write(first: int) -> None:
        for number in range(first, first + 50):
            with database.transaction() as db:
                db.execute("INSERT INTO numbers VALUES (?)", (number,))

    threads = [threading.Thread(target=write, args=(1000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(database) == 200


def synced(monkeypatch) -> list[str]:
    paths: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda file: paths.append(str(Path(f"/proc/self/fd/{file}").readlink())))
    return paths


def test_a_sync_waits_for_the_journal(database, tmp_path, monkeypatch):
    paths = synced(monkeypatch)
    with database.transaction() as db:
        db.execute("INSERT INTO numbers VALUES (1)")
    assert paths == []
    database.sync()
    assert paths == [str(tmp_path / "x.db-wal")]


def test_a_new_file_is_synced_with_its_folder(tmp_path, monkeypatch):
    paths = synced(monkeypatch)
    SharedDatabase(tmp_path / "new.db", SCHEMA).close()
    assert paths == [str(tmp_path)]


def test_a_file_that_is_no_database_is_closed_and_refused(tmp_path):
    (tmp_path / "x.db").write_bytes(b"no database" * 1000)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(sqlite3.DatabaseError):
        SharedDatabase(tmp_path / "x.db", SCHEMA)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_syncing_a_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        sync_path(tmp_path / "missing")
