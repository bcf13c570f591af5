"""The requester's store: its jobs and their executions, outbox and inbox.

Records are stored as JSON, so that a new field needs no new table. The schema gets a new version only when
an older program would misread a record.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.outbox import SCHEMA as MESSAGES_SCHEMA
from bacalhau_p2p.components.store import ComponentStore, Row
from bacalhau_p2p.errors import AmbiguousID, UnknownJob
from bacalhau_p2p.model.base import JobID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester.record import ACTIVE, GONE, SETTLED
from bacalhau_p2p.runtime.database import Migration, transaction, write_rows
from bacalhau_p2p.runtime.text import printable


def _number_slots(db: sqlite3.Connection) -> None:
    """Version 2: an execution has the number of the slot that it fills or filled.

    An earlier program gave free slots to the active and settled executions at each restart, in the order of
    their bids. The migration does the same. Earlier attempts without a result get no slot.
    """
    for job_id, job in db.execute("SELECT id, record FROM job").fetchall():
        rows = [
            (execution_id, json.loads(record))
            for execution_id, record in db.execute(
                "SELECT id, record FROM execution WHERE job_id = ? ORDER BY created, id", (job_id,)
            )
        ]
        filling = [row for row in rows if row[1]["State"] in ACTIVE | SETTLED]
        ran = [row for row in rows if row[1]["State"] in GONE and row[1]["Proposal"] is not None]
        slots = range(json.loads(job)["Spec"]["Count"])
        for (execution_id, record), slot in zip([*filling, *ran], slots, strict=False):
            changed = json.dumps({**record, "Slot": slot}).encode()
            db.execute(
                "UPDATE execution SET record = ? WHERE job_id = ? AND id = ?", (changed, job_id, execution_id)
            )


_UNFINISHED = f"state NOT IN ({', '.join(repr(str(state)) for state in JobState if state.terminal)})"
_MIGRATIONS: list[Migration] = [
    f"""
CREATE TABLE job (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, created REAL NOT NULL, token TEXT UNIQUE, record BLOB NOT NULL
) STRICT;
CREATE INDEX job_by_created ON job (created, id);
CREATE INDEX job_unfinished ON job (created) WHERE {_UNFINISHED};
CREATE TABLE execution (
    id TEXT NOT NULL, job_id TEXT NOT NULL, created REAL NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (job_id, id)
) STRICT;
"""
    + MESSAGES_SCHEMA,
    _number_slots,
]


PRUNED_AT_ONCE = 5000
"""Jobs that are looked at in one pruning; the next one goes on."""


@dataclass(frozen=True, slots=True)
class JobPage:
    jobs: Sequence[Job]
    next_offset: int | None
    """Where the next page begins, None on the last one."""


@dataclass(frozen=True, slots=True)
class SubmissionToken:
    """The idempotency token that a job was submitted with: a note that is committed with the job."""

    job_id: JobID
    token: str


class RequesterStore(ComponentStore):
    """Holds Job and Execution records, and the idempotency tokens of jobs."""

    def __init__(self, path: Path, *, power_safe: bool = True, keep_jobs: float = inf) -> None:
        """`keep_jobs`: seconds after which a job that has ended is deleted."""
        super().__init__(path, _MIGRATIONS, power_safe=power_safe)
        self._keep_jobs = keep_jobs

    def _write(self, commit: Commit) -> None:
        jobs = [record for record in commit.records if isinstance(record, Job)]
        executions = [record for record in commit.records if isinstance(record, Execution)]
        tokens = {note.job_id: note.token for note in commit.notes if isinstance(note, SubmissionToken)}
        write_rows(
            self.db,
            "INSERT INTO job (id, state, created, token, record) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET state = excluded.state, record = excluded.record",
            [(j.id, j.state, j.created, tokens.get(j.id), _json(j)) for j in jobs],
        )
        write_rows(
            self.db,
            "INSERT INTO execution (id, job_id, created, record) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (job_id, id) DO UPDATE SET record = excluded.record",
            [(e.id, e.job_id, e.created, _json(e)) for e in executions],
        )

    def job(self, job_id: JobID) -> Job:
        """Raises UnknownJob."""
        row = self._one("SELECT record FROM job WHERE id = ?", job_id)
        job = self._job(job_id, row[0]) if row is not None else None
        if job is None:
            raise _unknown(job_id)
        return job

    def has_ended(self, job_id: JobID) -> bool:
        """Raises UnknownJob."""
        row = self._one("SELECT state FROM job WHERE id = ?", job_id)
        if row is None:
            raise _unknown(job_id)
        return JobState(row[0]).terminal

    def resolve(self, prefix: str) -> JobID:
        """The id with this prefix. Raises UnknownJob, AmbiguousID."""
        if not prefix:
            raise UnknownJob("the job id is missing")
        if not prefix.isascii():  # all ids are ASCII, and SQLite takes no lone surrogates
            raise _unknown(prefix)
        ceiling = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        with closing(
            self.db.execute(
                "SELECT id FROM job WHERE id >= ? AND id < ? ORDER BY id LIMIT 3", (prefix, ceiling)
            )
        ) as rows:
            found = [JobID(row[0]) for row in rows]
        if not found:
            raise _unknown(prefix)
        if len(found) > 1 and found[0] != prefix:
            shown = ", ".join(job_id[: len(prefix) + 8] for job_id in found[:2])
            raise AmbiguousID(f"several jobs match the prefix {printable(prefix)}: {shown}, ...")
        return found[0]

    def by_token(self, token: str) -> JobID | None:
        row = self._one("SELECT id FROM job WHERE token = ?", token)
        return JobID(row[0]) if row else None

    def jobs(self, *, limit: int, offset: int = 0, newest_first: bool = True, prefix: str = "") -> JobPage:
        """Jobs by the time of their submission."""
        order = "DESC" if newest_first else "ASC"  # all else is a parameter
        query = (
            "SELECT id, record FROM job WHERE substr(id, 1, ?) = ? "  # noqa: S608
            f"ORDER BY created {order}, id LIMIT ? OFFSET ?"
        )
        with closing(self.db.execute(query, (len(prefix), prefix, limit + 1, offset))) as rows:
            found = list(rows)
        more = len(found) > limit
        return JobPage(
            jobs=self._jobs(found[:limit]),
            next_offset=offset + limit if more else None,
        )

    def executions(self, job_id: JobID) -> list[Execution]:
        """Oldest first; empty for an unknown job."""
        with closing(
            self.db.execute(
                "SELECT id, record FROM execution WHERE job_id = ? ORDER BY created, id", (job_id,)
            )
        ) as found:
            rows = [Row("execution", {"job_id": job_id, "id": key}, record) for key, record in found]
        records = (self.read(Execution, row) for row in rows)
        return [record for record in records if record is not None]

    def unfinished(self) -> list[Job]:
        """Jobs that have not ended, oldest first."""
        query = (
            "SELECT id, record FROM job WHERE state NOT IN ('Completed', 'Failed', 'Stopped') "
            "ORDER BY created"
        )
        with closing(self.db.execute(query)) as rows:
            found = list(rows)
        return self._jobs(found)

    def prune(self, now: UnixSeconds) -> None:
        """Delete also jobs that ended long ago, with their executions."""
        super().prune(now)
        query = f"SELECT id, record FROM job WHERE created < ? AND NOT ({_UNFINISHED}) LIMIT ?"  # noqa: S608
        with closing(self.db.execute(query, (now - self._keep_jobs, PRUNED_AT_ONCE))) as rows:
            jobs = self._jobs(list(rows))
        old = [(job.id,) for job in jobs if job.modified < now - self._keep_jobs]
        with transaction(self.db, power_safe=False):
            write_rows(self.db, "DELETE FROM execution WHERE job_id = ?", old)
            write_rows(self.db, "DELETE FROM job WHERE id = ?", old)

    def _jobs(self, rows: Sequence[tuple[str, bytes]]) -> list[Job]:
        jobs = (self._job(job_id, record) for job_id, record in rows)
        return [job for job in jobs if job is not None]

    def _job(self, job_id: str, record: bytes) -> Job | None:
        return self.read(Job, Row("job", {"id": job_id}, record))

    def _one(self, query: str, *values: str) -> tuple[Any] | None:
        with closing(self.db.execute(query, values)) as rows:
            row: tuple[Any] | None = rows.fetchone()
        return row


def _unknown(job_id: str) -> UnknownJob:
    return UnknownJob(f"no job has the id {printable(job_id)}")


def _json(record: Job | Execution) -> bytes:
    return record.model_dump_json(by_alias=True).encode()
