"""The compute component's store: its executions, outbox and inbox."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.outbox import SCHEMA as MESSAGES_SCHEMA
from bacalhau_p2p.components.store import ComponentStore, Row
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import UnixSeconds
from bacalhau_p2p.model.state import ComputeState
from bacalhau_p2p.runtime.database import transaction, write_rows

FORGET_ENDED = 24 * 3600.0
"""Seconds after which an ended execution is deleted. Until then the node's owner can look at it."""

# No index but the key: it would be written with every change, and used at the start only.
_MIGRATIONS = [
    """
CREATE TABLE execution (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, modified REAL NOT NULL, record BLOB NOT NULL
) STRICT;
"""
    + MESSAGES_SCHEMA
]
_ENDED = tuple(str(state) for state in ComputeState if state.terminal)
_MARKS = ", ".join("?" for _ in _ENDED)


class ComputeStore(ComponentStore):
    """Holds ComputeExecution records."""

    def __init__(self, path: Path, *, power_safe: bool = True) -> None:
        super().__init__(path, _MIGRATIONS, power_safe=power_safe)

    def _write(self, commit: Commit) -> None:
        executions = [record for record in commit.records if isinstance(record, ComputeExecution)]
        write_rows(
            self.db,
            "INSERT INTO execution (id, state, modified, record) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO "
            "UPDATE SET state = excluded.state, modified = excluded.modified, record = excluded.record",
            [(e.id, e.state, e.modified, e.model_dump_json(by_alias=True).encode()) for e in executions],
        )

    def active(self) -> list[ComputeExecution]:
        """Executions that have not ended, the one that changed longest ago first."""
        return self._read(f"WHERE state NOT IN ({_MARKS}) ORDER BY modified", *_ENDED)

    def ended_since(self, since: UnixSeconds) -> list[ComputeExecution]:
        return self._read(f"WHERE state IN ({_MARKS}) AND modified >= ? ORDER BY modified", *_ENDED, since)

    def prune(self, now: UnixSeconds) -> None:
        """Delete also executions that ended more than `FORGET_ENDED` seconds ago."""
        super().prune(now)
        with transaction(self.db, power_safe=False):
            self.db.execute(
                f"DELETE FROM execution WHERE state IN ({_MARKS}) AND modified < ?",  # noqa: S608
                (*_ENDED, now - FORGET_ENDED),
            )

    def _read(self, where: str, *values: object) -> list[ComputeExecution]:
        query = f"SELECT id, record FROM execution {where}"  # noqa: S608 - only literals of this file
        with closing(self.db.execute(query, values)) as found:
            rows = [Row("execution", {"id": execution_id}, record) for execution_id, record in found]
        records = (self.read(ComputeExecution, row) for row in rows)
        return [record for record in records if record is not None]
