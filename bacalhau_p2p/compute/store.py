"""The compute component's memory on disk: its executions, and its mail."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from bacalhau_p2p.components.outbox import SCHEMA as MAIL_SCHEMA
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import UnixSeconds
from bacalhau_p2p.model.state import ComputeState
from bacalhau_p2p.runtime.database import open_database, transaction, write_rows

FORGET_ENDED = 24 * 3600.0
"""Seconds for which an ended execution stays on disk, for its owner to look at."""

# No index but the key: each would be written with every change, and is only asked for at the start.
_MIGRATIONS = [
    """
CREATE TABLE execution (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, modified REAL NOT NULL, record BLOB NOT NULL
) STRICT;
"""
    + MAIL_SCHEMA
]
_ENDED = tuple(str(state) for state in ComputeState if state.terminal)
_MARKS = ", ".join("?" for _ in _ENDED)


class ComputeStore:
    """Not for use by several threads. Raises SettingsError when the file is not ours."""

    def __init__(self, path: Path) -> None:
        self.db = open_database(path, _MIGRATIONS)

    def close(self) -> None:
        self.db.close()

    def keep(self, executions: Iterable[ComputeExecution]) -> None:
        """Within a transaction that is open: keep these, the latest of each."""
        write_rows(
            self.db,
            "INSERT INTO execution (id, state, modified, record) VALUES (?, ?, ?, ?) ON CONFLICT (id) "
            "DO UPDATE SET state = excluded.state, modified = excluded.modified, record = excluded.record",
            [(e.id, e.state, e.modified, e.model_dump_json(by_alias=True).encode()) for e in executions],
        )

    def active(self) -> list[ComputeExecution]:
        """Executions that have not ended, oldest change first."""
        return self._read(f"WHERE state NOT IN ({_MARKS}) ORDER BY modified", *_ENDED)

    def ended_since(self, since: UnixSeconds) -> list[ComputeExecution]:
        return self._read(f"WHERE state IN ({_MARKS}) AND modified >= ? ORDER BY modified", *_ENDED, since)

    def forget_ended(self, now: UnixSeconds) -> None:
        """Drop what ended long ago."""
        with transaction(self.db, power_safe=False):
            self.db.execute(
                f"DELETE FROM execution WHERE state IN ({_MARKS}) AND modified < ?",  # noqa: S608
                (*_ENDED, now - FORGET_ENDED),
            )

    def _read(self, where: str, *values: object) -> list[ComputeExecution]:
        query = f"SELECT record FROM execution {where}"  # noqa: S608 - only literals of this file
        with closing(self.db.execute(query, values)) as rows:
            return [ComputeExecution.model_validate_json(row[0]) for row in rows]
