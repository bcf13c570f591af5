"""Waiting until the disk itself holds what was written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def sync_path(path: str | Path) -> None:
    """Of a file or a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_database(path: Path) -> None:
    """Of an SQLite database in WAL mode, every transaction that has been committed.

    What is in the database file itself was synced when the journal was copied there. Raises OSError.
    """
    with suppress(FileNotFoundError):
        sync_path(path.with_name(f"{path.name}-wal"))
