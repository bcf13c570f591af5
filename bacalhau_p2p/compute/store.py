"""The compute component's store: its executions, outbox and inbox.

Those that have not ended are in a table of their own, which stays small, so that a node starts quickly.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.outbox import SCHEMA as MESSAGES_SCHEMA
from bacalhau_p2p.components.packing import Packed, Packer, add_dictionary
from bacalhau_p2p.components.store import PRUNED_AT_ONCE, ComponentStore, Retention, Row
from bacalhau_p2p.compute.record import ComputeExecution, without_spec
from bacalhau_p2p.model.base import ExecutionID, UnixSeconds
from bacalhau_p2p.runtime.database import run_statements, transaction, write_rows

FORGET_ENDED = 24 * 3600.0
"""Seconds after which an ended execution is deleted: until then its requester may ask about it."""
KEEP_ENDED = Retention(FORGET_ENDED)

_SCHEMA = """
CREATE TABLE execution (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, modified REAL NOT NULL, record TEXT NOT NULL
) STRICT;
CREATE TABLE ended (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, modified REAL NOT NULL, record ANY NOT NULL
) STRICT;
"""
"""The records of those that have ended are packed (`components/packing.py`)."""
_DICTIONARY = b"".join(
    [
        b'"Partition":1,"InputDisk":1,"UnsizedInputs":true,"InputSizes":[[1,0]],"GPUs":["","Message":"cancelled',
        b'"State":"Failed","Message":"no answer came from the requester","State":"Rejected","Message":',
        b'"other bids were better","Created":17,"Expires":17',
        b'{"JobID":"","RequesterID":"12D3KooW","Spec":{"Tasks":[{"Engine":{"Type":"noop"}}]},',
        b'"State":"Completed","Message":"published","Created":17,"Expires":17,"ResultCID":"bafybei',
        b'","ResultBytes":1,"Published":{"CID":"bafybei","Location":{"Type":"ipfs","Params":{"CID":"bafybei',
        b'"Providers":["/ip4/127.0.0.1/tcp/1235/p2p/12D3KooW"]}}}}',
    ]
)
"""What these records share, the most frequent last."""
_FIRST_VERSION = 3


def _create(db: sqlite3.Connection) -> None:
    run_statements(db, _SCHEMA + MESSAGES_SCHEMA)
    add_dictionary(db, _DICTIONARY)


class ComputeStore(ComponentStore):
    """Holds ComputeExecution records."""

    def __init__(self, path: Path, *, power_safe: bool = True, keep_ended: Retention = KEEP_ENDED) -> None:
        """`keep_ended`: when an execution that has ended is deleted. One whose requester has not yet
        acknowledged how it ended is kept until that message is given up."""
        super().__init__(path, [_create], first_version=_FIRST_VERSION, power_safe=power_safe)
        self._packer = Packer(self.db)
        self._keep_ended = keep_ended

    def _write(self, commit: Commit) -> None:
        executions = [record for record in commit.records if isinstance(record, ComputeExecution)]
        ended = [each for each in executions if each.state.terminal]
        write_rows(
            self.db,
            "INSERT INTO execution (id, state, modified, record) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO "
            "UPDATE SET state = excluded.state, modified = excluded.modified, record = excluded.record",
            [(e.id, e.state, e.modified, _json(e)) for e in executions if not e.state.terminal],
        )
        write_rows(self.db, "DELETE FROM execution WHERE id = ?", [(e.id,) for e in ended])
        write_rows(
            self.db,
            "INSERT OR REPLACE INTO ended (id, modified, record) VALUES (?, ?, ?)",
            [(e.id, e.modified, self._packer.pack(_ended_json(e))) for e in ended],
        )

    def active(self) -> list[ComputeExecution]:
        """Executions that have not ended, the one that changed longest ago first."""
        return self._read("execution", "ORDER BY modified")

    def ended(self, execution_id: ExecutionID) -> ComputeExecution | None:
        """An execution that has ended and is still kept, without the spec of its job."""
        found = self._read("ended", "WHERE id = ?", execution_id)
        return found[0] if found else None

    def prune(self, now: UnixSeconds) -> bool:
        """Delete also executions that have ended and are not to be kept."""
        super().prune(now)
        with closing(self.db.execute("SELECT execution FROM outbox")) as rows:
            awaited = {execution_id for (execution_id,) in rows}
        with closing(self.db.execute("SELECT count(*) FROM ended")) as rows:
            (count,) = rows.fetchone()
        kept = self._keep_ended
        looked_at = PRUNED_AT_ONCE + len(awaited)
        query = "SELECT number, id, modified FROM ended ORDER BY number LIMIT ?"
        with closing(self.db.execute(query, (looked_at,))) as rows:
            old = [
                (number,)
                for place, (number, execution_id, modified) in enumerate(rows)
                if (count - place > kept.count or modified < now - kept.seconds)
                and execution_id not in awaited
            ]
        if old:
            with transaction(self.db, power_safe=False):
                write_rows(self.db, "DELETE FROM ended WHERE number = ?", old)
        return len(old) >= PRUNED_AT_ONCE

    def _read(self, table: str, where: str, *values: object) -> list[ComputeExecution]:
        query = f"SELECT id, record FROM {table} {where}"  # noqa: S608 - only literals of this file
        with closing(self.db.execute(query, values)) as found:
            rows = [Row(table, {"id": execution_id}, record) for execution_id, record in found]
        records = (self.read(self._decoded, row) for row in rows)
        return [record for record in records if record is not None]

    def _decoded(self, record: Packed) -> ComputeExecution:
        return ComputeExecution.model_validate_json(self._packer.unpack(record))


def _json(execution: ComputeExecution) -> str:
    return execution.model_dump_json(by_alias=True)


def _ended_json(execution: ComputeExecution) -> str:
    """What late messages need: strangers choose how large the rest is."""
    return without_spec(execution).model_dump_json(by_alias=True, exclude_defaults=True)
