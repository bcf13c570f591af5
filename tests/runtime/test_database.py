"""A component's database: migrations, and transactions that are written as a whole or not at all."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from bacalhau_p2p.errors import SettingsError, StoreFailed
from bacalhau_p2p.runtime.database import open_database, transaction

FIRST = "CREATE TABLE item (value BLOB)"
SECOND = "CREATE TABLE other (value INTEGER)"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.db"


def limit_growth(db, pages):
    """Let the database grow by this many pages of 4 KiB, as on a disk that is almost full."""
    (now,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count={now + pages}")


def insert(db, *values, **options):
    with transaction(db, **options):
        for value in values:
            db.execute("INSERT INTO item VALUES (?)", (value,))


def items(db):
    return [value for (value,) in db.execute("SELECT value FROM item")]


def test_a_transaction_that_does_not_fit_writes_nothing_and_later_ones_work_when_there_is_room(path):
    with closing(open_database(path, [FIRST])) as db:
        limit_growth(db, 10)
        with pytest.raises(StoreFailed, match=r"x\.db cannot be written: database or disk is full"):
            insert(db, b"small", b"large" * 20_000)
        insert(db, b"later")
        limit_growth(db, 100)
        insert(db, b"large" * 20_000)
        assert items(db) == [b"later", b"large" * 20_000]


def test_a_transaction_whose_block_raises_writes_nothing(path):
    def fail_half_way():
        with transaction(db):
            db.execute("INSERT INTO item VALUES ('x')")
            raise KeyError

    with closing(open_database(path, [FIRST])) as db:
        with pytest.raises(KeyError):
            fail_half_way()
        assert items(db) == []
        insert(db, "y")
        assert items(db) == ["y"]


def test_a_wrong_statement_does_not_count_as_a_failing_disk(path):
    with (
        closing(open_database(path, [])) as db,
        pytest.raises(sqlite3.OperationalError, match="no such table"),
    ):
        insert(db, "x")


@pytest.mark.parametrize(("power_safe", "level"), [(True, 2), (False, 1)])
def test_only_a_power_safe_transaction_waits_for_the_disk(path, power_safe, level):
    with closing(open_database(path, [FIRST])) as db, transaction(db, power_safe=power_safe):
        assert db.execute("PRAGMA synchronous").fetchone() == (level,)


def test_only_missing_migrations_are_applied(path):
    def insert_seven(db):
        db.execute("INSERT INTO other VALUES (7)")

    open_database(path, [FIRST]).close()
    for _ in range(2):
        with closing(open_database(path, [FIRST, SECOND, insert_seven])) as db:
            assert db.execute("SELECT value FROM other").fetchall() == [(7,)]


def test_a_failed_migration_changes_nothing(path):
    with pytest.raises(SettingsError):
        open_database(path, [f"{FIRST}; {FIRST}"])
    with closing(open_database(path, [FIRST])) as db:
        assert items(db) == []


def test_a_database_of_a_later_version_is_refused(path):
    open_database(path, [FIRST, SECOND]).close()
    with pytest.raises(SettingsError, match="later version"):
        open_database(path, [FIRST])


def test_a_database_of_a_version_before_the_first_is_refused(path):
    open_database(path, [FIRST]).close()
    with pytest.raises(
        SettingsError, match=r"earlier version of bacalhau_p2p \(schema 1\).*move the file away"
    ):
        open_database(path, [SECOND], first_version=2)


def test_versions_are_counted_from_the_first(path):
    for _ in range(2):
        with closing(open_database(path, [FIRST, SECOND], first_version=7)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (8,)
    with pytest.raises(SettingsError, match="later version"):
        open_database(path, [FIRST], first_version=7)


def test_a_file_that_is_no_database_is_refused(path):
    path.write_bytes(b"not a database, but long enough to look like one" * 10)
    with pytest.raises(SettingsError, match="not a database of this program"):
        open_database(path, [])


@pytest.mark.parametrize("existed", [False, True])
def test_only_the_owner_may_read_a_database_and_its_log(tmp_path, existed):
    path = tmp_path / "x.db"
    if existed:
        path.write_bytes(b"")
        path.chmod(0o644)
    before = os.umask(0)
    try:
        db = open_database(path, ["CREATE TABLE t (x)"])
        with transaction(db):
            db.execute("INSERT INTO t VALUES (1)")
        modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600}
    db.close()
