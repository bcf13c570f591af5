"""The requester's store: its jobs and their executions, outbox and inbox.

Records are stored as JSON (`rows`), so that a new field needs no new table. The schema gets a new version
only when an older program would misread a record.
"""

from __future__ import annotations

import re
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.outbox import SCHEMA as MESSAGES_SCHEMA
from bacalhau_p2p.components.store import FOR_EVER, PRUNED_AT_ONCE, ComponentStore, Retention, Row
from bacalhau_p2p.errors import AmbiguousID, UnknownJob
from bacalhau_p2p.model.base import JobID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import HistoryEvent
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester.feed import Feed
from bacalhau_p2p.requester.rows import (
    ADD_NAME,
    APPEND_EVENT,
    DETACH_EVENTS,
    ENDED,
    EVENT_COLUMNS,
    EXECUTION_COLUMNS,
    JOB_COLUMNS,
    JOIN_EXECUTION,
    ExecutionBrief,
    Rows,
    create_rows,
    labels_of_job,
)
from bacalhau_p2p.runtime.database import run_statements, transaction, write_rows
from bacalhau_p2p.runtime.text import printable

LATEST_JOBS = 64
"""Jobs that were committed last and are held in memory too, each with a spec of up to MAX_SPEC bytes."""


_FIRST_VERSION = 7


def _create(db: sqlite3.Connection) -> None:
    create_rows(db)
    run_statements(db, MESSAGES_SCHEMA)


SCAN = 500
"""Jobs that one call looks at when it searches for those that match."""
MAX_RECORDS = 100
"""Jobs that one call of `job_records` returns: others do not wait long for it."""
EXECUTIONS_AT_ONCE = 50
"""Executions of a job that are read at once, in about 2 ms."""

ORDERS: dict[str, tuple[str, ...]] = {
    "created_at": ("number",),
    "modified_at": ("modified", "number"),
    "id": ("id",),
}
"""The columns that jobs can be ordered by, in Bacalhau's words. Together they are unique."""
_COLUMN_TEXTS = {"number": "([0-9]{1,15})", "modified": r"([0-9]{1,12}\.[0-9]{1,12})", "id": "([!-~]{1,128})"}
"""What a token has of each column. Numbers of jobs are small enough to be exact as floats."""
_UUID_LENGTH = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs are wanted, and in which order."""

    order: str = "created_at"
    """`created_at`, `modified_at` or `id`."""
    newest_first: bool = True
    """Or, by id, the last one first."""
    prefix: str = ""
    """What their ids begin with."""
    state: JobState | None = None
    labelled: Callable[[Mapping[str, str], str], bool] | None = None
    """Whether a job with these labels, in this namespace, is wanted. Ten times faster than `matching`."""
    matching: Callable[[Job], bool] | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    jobs: Sequence[Job]
    next_token: str
    """What to give as `after` for the next page; empty on the last one."""


@dataclass(frozen=True, slots=True)
class RecordPage:
    jobs: Sequence[dict[str, Any]]
    """The JSON of each job."""
    next_token: str


@dataclass(frozen=True, slots=True)
class SubmissionToken:
    """The idempotency token that a job was submitted with: a note that is committed with the job."""

    job_id: JobID
    token: str


class RequesterStore(ComponentStore):
    """Holds Job and Execution records, and the idempotency tokens of jobs."""

    def __init__(self, path: Path, *, power_safe: bool = True, keep_jobs: Retention = FOR_EVER) -> None:
        """`keep_jobs`: when a job that has ended is deleted, with its executions and its token."""
        super().__init__(path, [_create], first_version=_FIRST_VERSION, power_safe=power_safe)
        self._rows = Rows(self.db)
        self.feed = Feed(self.db, self._rows)
        self._keep_jobs = keep_jobs
        self._latest: OrderedDict[JobID, Job] = OrderedDict()
        """The jobs that were committed last, as they are in the database: users ask for these."""

    def commit(self, commit: Commit, delivered: Sequence[MessageID]) -> None:
        """As in `ComponentStore`."""
        super().commit(commit, delivered)
        for record in commit.records:
            if isinstance(record, Job):
                self._latest[record.id] = record
                self._latest.move_to_end(record.id)
                if not self._rows.has_named(record.requester_id):
                    self._rows.read_names()
        while len(self._latest) > LATEST_JOBS:
            self._latest.popitem(last=False)

    def _write(self, commit: Commit) -> None:
        jobs = [record for record in commit.records if isinstance(record, Job)]
        executions = [record for record in commit.records if isinstance(record, Execution)]
        tokens = {note.job_id: note.token for note in commit.notes if isinstance(note, SubmissionToken)}
        unnamed = {job.requester_id for job in jobs if not self._rows.has_named(job.requester_id)}
        write_rows(self.db, ADD_NAME, [(requester_id,) for requester_id in unnamed])
        write_rows(
            self.db,
            f"INSERT INTO job ({JOB_COLUMNS}, token, name) "  # noqa: S608 - only literals of this program
            "VALUES (?, ?, ?, ?, (SELECT number FROM name WHERE text = ?), ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE "
            "SET state = excluded.state, modified = excluded.modified, record = excluded.record",
            [(*self._rows.of_job(job), tokens.get(job.id), job.spec.name or None) for job in jobs],
        )
        write_rows(
            self.db,
            # Of a job that was deleted no execution is stored any more.
            f"INSERT INTO execution (job, {EXECUTION_COLUMNS}) "  # noqa: S608 - only literals of this program
            "SELECT number, ?, ?, ?, ?, ? FROM job WHERE id = ? ON CONFLICT (job, id) DO UPDATE "
            "SET state = excluded.state, slot = excluded.slot, record = excluded.record",
            [(*self._rows.of_execution(each), each.job_id) for each in executions],
        )
        self.db.executemany(APPEND_EVENT, [self._rows.of_event(event) for event in commit.history])

    def job(self, job_id: JobID) -> Job:
        """Raises UnknownJob."""
        if (latest := self._latest.get(job_id)) is not None:
            return latest
        row = self._one(f"SELECT {JOB_COLUMNS} FROM job WHERE id = ?", job_id)  # noqa: S608
        job = self._job(row) if row is not None else None
        if job is None:
            raise _unknown(job_id)
        return job

    def has_ended(self, job_id: JobID) -> bool:
        """Raises UnknownJob."""
        if (latest := self._latest.get(job_id)) is not None:
            return latest.state.terminal
        row = self._one("SELECT state FROM job WHERE id = ?", job_id)
        if row is None:
            raise _unknown(job_id)
        return JobState(row[0]).terminal

    def resolve(self, wanted: str) -> JobID:
        """The job with this id, name or prefix of an id. Raises UnknownJob, AmbiguousID."""
        if len(wanted) == _UUID_LENGTH and wanted in self._latest:
            return JobID(wanted)
        if not wanted:
            raise UnknownJob("the job id is missing")
        if len(wanted) != _UUID_LENGTH and (named := self.named(wanted, most=2)):
            if len(named) > 1:
                problem = f"several jobs have the name {printable(wanted)}, the latest is {named[0][:8]}"
                raise AmbiguousID(f"{problem}; use the id of one")
            return named[0]
        if not wanted.isascii():  # all ids are ASCII
            raise _unknown(wanted)
        with closing(
            self.db.execute(
                "SELECT id FROM job WHERE id >= ? AND id < ? ORDER BY id LIMIT 3", (wanted, _ceiling(wanted))
            )
        ) as rows:
            found = [JobID(row[0]) for row in rows]
        if not found:
            raise _unknown(wanted)
        if len(found) > 1 and found[0] != wanted:
            shown = ", ".join(job_id[: len(wanted) + 8].rstrip("-") for job_id in found[:2])
            more = ", ..." if len(found) > 2 else ""
            raise AmbiguousID(f"several jobs match the prefix {printable(wanted)}: {shown}{more}")
        return found[0]

    def named(self, name: str, *, most: int) -> list[JobID]:
        """The latest jobs with this name, newest first."""
        try:
            name.encode()
        except UnicodeEncodeError:  # SQLite takes no lone surrogates
            return []
        query = "SELECT id FROM job WHERE name = ? ORDER BY number DESC LIMIT ?"
        with closing(self.db.execute(query, (name, most))) as rows:
            return [JobID(row[0]) for row in rows]

    def by_token(self, token: str) -> JobID | None:
        row = self._one("SELECT id FROM job WHERE token = ?", token)
        return JobID(row[0]) if row else None

    def jobs(self, query: JobQuery = JobQuery(), *, limit: int, after: str = "") -> JobPage:
        """The jobs of a query, from the one that follows `after`: the `next_token` of the page before.

        If the query has `labelled` or `matching`, a page may be short, or empty, though more follow: no more
        than SCAN jobs are looked at. Raises ValueError for an unknown order, or a token of another order.
        """
        jobs: list[Job] = []

        def take(row: Sequence[Any]) -> bool:
            job = self._job(row)
            wanted = job is not None and (query.matching is None or query.matching(job))
            if job is not None and wanted:
                jobs.append(job)
            return wanted

        next_token = self._take(query, take, limit=limit, after=after)
        return JobPage(jobs, next_token)

    def job_records(self, query: JobQuery, *, limit: int, after: str = "") -> RecordPage:
        """The same as JSON, for who shows many jobs: four times as fast, since no record is validated.

        At most MAX_RECORDS; the query has no `matching`. Raises ValueError also for a record that cannot be
        read, which `jobs` sets aside.
        """
        jobs: list[dict[str, Any]] = []

        def take(row: Sequence[Any]) -> bool:
            jobs.append(self._rows.job_json(*row))
            return True

        next_token = self._take(query, take, limit=min(limit, MAX_RECORDS), after=after)
        return RecordPage(jobs, next_token)

    def _take(self, query: JobQuery, take: Callable[[Sequence[Any]], bool], *, limit: int, after: str) -> str:
        """Give the rows of a query to `take`, until it has taken `limit`. Returns where to go on."""
        if query.order not in ORDERS:
            raise ValueError(f"unknown order {printable(query.order)!r}; use {', '.join(ORDERS)}")
        columns, prefix = ORDERS[query.order], query.prefix
        if not prefix.isascii():
            return ""
        direction, follows = ("DESC", "<") if query.newest_first else ("ASC", ">")  # all else is a parameter
        where, values = ["TRUE"], list[object]()
        if after:
            where.append(f"({', '.join(columns)}) {follows} ({', '.join('?' * len(columns))})")
            values += _place_of(after, columns)
        if prefix:
            where.append("id >= ? AND id < ?")
            values += [prefix, _ceiling(prefix)]
        if query.state is not None:
            where.append("state = ?")
            values.append(query.state)
        statement = (
            f"SELECT {', '.join(columns)}, {JOB_COLUMNS} FROM job WHERE {' AND '.join(where)} "  # noqa: S608
            f"ORDER BY {', '.join(f'{column} {direction}' for column in columns)} LIMIT ?"
        )
        most = SCAN if query.matching or query.labelled else limit
        with closing(self.db.execute(statement, (*values, most + 1))) as rows:
            found = list(rows)
        taken = seen = 0
        for row in found[:most]:
            if taken == limit:
                break
            seen += 1
            if query.labelled is None or query.labelled(*labels_of_job(row[-1])):
                taken += take(row[len(columns) :])
        last = found[seen - 1][: len(columns)] if seen < len(found) else ()
        return ":".join(map(str, last))

    def executions(self, job_id: JobID) -> list[Execution]:
        """Oldest first; empty for an unknown job."""
        return [each for some in self.execution_steps(job_id) for each in some]

    def execution_steps(self, job_id: JobID) -> Iterator[list[Execution]]:
        """The same, EXECUTIONS_AT_ONCE at a time: others may work between two steps."""
        for rows in self._execution_rows(job_id):
            found = [self._execution(job_id, *row) for row in rows]
            yield [each for each in found if each is not None]

    def execution_record_steps(self, job_id: JobID) -> Iterator[list[dict[str, Any]]]:
        """The same as JSON, three times as fast, since no record is validated. Raises ValueError for a record
        that cannot be read, which `execution_steps` sets aside."""
        for rows in self._execution_rows(job_id):
            yield [self._rows.execution_json(job_id, *row) for _, *row in rows]

    def _execution_rows(self, job_id: JobID) -> Iterator[list[Sequence[Any]]]:
        query = (
            "SELECT number FROM execution WHERE job = (SELECT number FROM job WHERE id = ?) ORDER BY number"
        )
        with closing(self.db.execute(query, (job_id,))) as found:
            numbers = [number for (number,) in found]
        for start in range(0, len(numbers), EXECUTIONS_AT_ONCE):
            some = numbers[start : start + EXECUTIONS_AT_ONCE]
            query = (
                f"SELECT number, {EXECUTION_COLUMNS} FROM execution "  # noqa: S608 - only question marks
                f"WHERE number IN ({', '.join('?' * len(some))}) "
                "AND +job = (SELECT number FROM job WHERE id = ?) ORDER BY number"
            )
            with closing(self.db.execute(query, (*some, job_id))) as rows:
                found_rows: list[Sequence[Any]] = list(rows)
            yield found_rows

    def briefs(self, job_id: JobID) -> list[ExecutionBrief]:
        """What a list of jobs shows of the executions, oldest first. Much faster: no record is read."""
        query = (
            "SELECT node, state, slot FROM execution "
            "WHERE job = (SELECT number FROM job WHERE id = ?) ORDER BY number"
        )
        with closing(self.db.execute(query, (job_id,))) as found:
            rows = list(found)
        try:
            return [self._rows.brief(*row) for row in rows]
        except ValueError:  # a row that cannot be read is set aside
            return [ExecutionBrief(each.state, each.node_id, each.slot) for each in self.executions(job_id)]

    def history(self, job_id: JobID, *, after: int = 0, limit: int = -1) -> list[HistoryEvent]:
        """The events of a job that follow number `after`, in order; empty for an unknown job."""
        query = (
            f"SELECT {EVENT_COLUMNS} FROM event {JOIN_EXECUTION} "  # noqa: S608 - only literals of this program
            "WHERE event.job = (SELECT number FROM job WHERE id = ?) AND event.number > ? "
            "ORDER BY event.number LIMIT ?"
        )
        with closing(self.db.execute(query, (job_id, after, limit))) as rows:
            return [self._rows.event(job_id, *row) for row in rows]

    def told(self, job_id: JobID) -> int:
        """How many events the history of a job has."""
        query = "SELECT max(number) FROM event WHERE job = (SELECT number FROM job WHERE id = ?)"
        (last,) = self._one(query, job_id) or (None,)
        return last or 0

    def unfinished(self) -> list[Job]:
        """Jobs that have not ended, oldest first."""
        query = f"SELECT {JOB_COLUMNS} FROM job WHERE NOT ({ENDED}) ORDER BY number"  # noqa: S608
        with closing(self.db.execute(query)) as rows:
            found = list(rows)
        return self._jobs(found)

    def prune(self, now: UnixSeconds) -> bool:
        """Delete also jobs that have ended and are not to be kept, with their executions."""
        super().prune(now)
        kept = self._keep_jobs
        (count,) = self._one(f"SELECT count(*) FROM job WHERE {ENDED}") or (0,)  # noqa: S608
        query = f"SELECT number, modified FROM job WHERE {ENDED} ORDER BY modified LIMIT ?"  # noqa: S608
        with closing(self.db.execute(query, (PRUNED_AT_ONCE,))) as rows:
            old = [
                (number,)
                for place, (number, modified) in enumerate(rows)
                if count - place > kept.count or modified < now - kept.seconds
            ]
        if old:
            self._latest.clear()
            with transaction(self.db, power_safe=False):
                write_rows(self.db, "DELETE FROM execution WHERE job = ?", old)
                write_rows(self.db, "DELETE FROM event WHERE job = ?", old)
                write_rows(self.db, "DELETE FROM job WHERE number = ?", old)
        return len(old) == PRUNED_AT_ONCE

    def _jobs(self, rows: Sequence[Sequence[Any]]) -> list[Job]:
        jobs = (self._job(row) for row in rows)
        return [job for job in jobs if job is not None]

    def _job(self, row: Sequence[Any]) -> Job | None:
        return self.read(lambda _: self._rows.job(*row), Row("job", {"id": row[0]}, row[-1]))

    def _execution(self, job_id: JobID, number: int, *row: Any) -> Execution | None:
        stored = Row("execution", {"number": number, "id": row[0]}, row[-1])
        return self.read(lambda _: self._rows.execution(job_id, *row), stored)

    def _detach(self, row: Row) -> None:
        """The number of the row may be given to another one."""
        if row.table == "execution":
            self.db.execute(DETACH_EVENTS, row.key)
        if row.table == "job":
            self._latest.pop(JobID(str(row.key["id"])), None)
            for table in ("execution", "event"):
                self.db.execute(
                    f"DELETE FROM {table} WHERE job = (SELECT number FROM job WHERE id = :id)",  # noqa: S608
                    row.key,
                )

    def _one(self, query: str, *values: str) -> tuple[Any, ...] | None:
        with closing(self.db.execute(query, values)) as rows:
            row: tuple[Any, ...] | None = rows.fetchone()
        return row


def _place_of(token: str, columns: Sequence[str]) -> list[object]:
    """The values of these columns in a token. Raises ValueError."""
    match = re.fullmatch(":".join(_COLUMN_TEXTS[column] for column in columns), token)
    if match is None:
        raise ValueError(f"invalid next_token {printable(token)!r}")
    return [
        text if column == "id" else float(text) for column, text in zip(columns, match.groups(), strict=True)
    ]


def _ceiling(prefix: str) -> str:
    """What follows all ids with this prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _unknown(job_id: str) -> UnknownJob:
    return UnknownJob(f"no job has the id {printable(job_id)}")
