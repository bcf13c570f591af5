"""Jobs, executions and events as rows of the requester's database. Nothing is in a row twice.

A row has the columns by which it is found, and the rest of the record as JSON, without what has its default
value. So a default that changes needs a migration: a test keeps watch over them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.job import DEFAULT_NAMESPACE
from bacalhau_p2p.model.omitted_defaults import with_defaults
from bacalhau_p2p.model.state import ExecutionState

JOB_COLUMNS = "id, state, created, modified, record"
"""What `read_job` takes, in this order."""

HISTORY_SCHEMA = """
CREATE TABLE event (
    job INTEGER NOT NULL, number INTEGER NOT NULL, time REAL NOT NULL, kind TEXT NOT NULL,
    message TEXT NOT NULL, state TEXT NOT NULL, execution TEXT NOT NULL, node TEXT NOT NULL,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;
"""
FEED_SCHEMA = """
ALTER TABLE event RENAME TO old_event;
CREATE TABLE event (
    place INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL, number INTEGER NOT NULL,
    time REAL NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL, state TEXT NOT NULL,
    execution TEXT NOT NULL, node TEXT NOT NULL
) STRICT;
INSERT INTO event (job, number, time, kind, message, state, execution, node)
    SELECT job, number, time, kind, message, state, execution, node FROM old_event ORDER BY time, job, number;
DROP TABLE old_event;
CREATE UNIQUE INDEX event_of_job ON event (job, number);
"""
"""Version 6: events have a place among those of all jobs. No place is given twice, so that what is missing
between two of them was deleted."""
APPEND_EVENT = """
INSERT INTO event (job, number, time, kind, message, state, execution, node)
SELECT number, ?, ?, ?, ?, ?, ?, ? FROM job WHERE id = ?
"""
"""Of a job that was deleted nothing is told any more."""
SELECT_EVENTS = """
SELECT number, time, kind, message, state, execution, node FROM event
WHERE job = (SELECT number FROM job WHERE id = ?) AND number > ? ORDER BY number LIMIT ?
"""

SELECT_BRIEFS = """
SELECT json_extract(text, '$.State'), json_extract(text, '$.NodeID'), json_extract(text, '$.Slot')
FROM (SELECT CAST(record AS TEXT) AS text, number FROM execution
      WHERE job = (SELECT number FROM job WHERE id = ?)) ORDER BY number
"""

_IN_JOB_COLUMNS = {"id", "state", "created", "modified"}
_IN_EXECUTION_COLUMNS: Any = {"id": True, "job_id": True, "proposal": {"job_id", "execution_id", "node_id"}}
"""A proposal is that of its execution, or the machine refuses it."""


class ExecutionBrief(NamedTuple):
    """What a list of jobs shows of an execution."""

    state: ExecutionState
    node_id: PeerID
    slot: int | None


def job_json(job: Job) -> bytes:
    """The record of a job without its columns."""
    return job.model_dump_json(by_alias=True, exclude_defaults=True, exclude=_IN_JOB_COLUMNS).encode()


def read_job(job_id: str, state: str, created: float, modified: float, record: bytes) -> Job:
    """Raises ValueError."""
    columns = {"ID": job_id, "State": state, "Created": created, "Modified": modified}
    return Job.model_validate_json(json.dumps({**_object(record), **columns}))


def job_record(job_id: str, state: str, created: float, modified: float, record: bytes) -> dict[str, Any]:
    """The JSON of the job that `read_job` reads, not validated. Raises ValueError."""
    columns = {"ID": job_id, "State": state, "Created": created, "Modified": modified}
    return with_defaults(Job, {**_object(record), **columns})


def labels_of_job(record: bytes) -> tuple[Mapping[str, str], str]:
    """The labels and the namespace in the record of a job, without reading all of it as a job.

    Those of a job without any if the record cannot be read."""
    try:
        spec = _object(record).get("Spec") or {}
        return spec.get("Labels") or {}, spec.get("Namespace") or DEFAULT_NAMESPACE
    except (ValueError, AttributeError):
        return {}, DEFAULT_NAMESPACE


def execution_json(execution: Execution) -> bytes:
    """The record of an execution without its id, its job's id, and their repetitions."""
    return execution.model_dump_json(
        by_alias=True, exclude_defaults=True, exclude=_IN_EXECUTION_COLUMNS
    ).encode()


def read_execution(job_id: JobID, execution_id: str, record: bytes) -> Execution:
    """Raises ValueError."""
    return Execution.model_validate_json(to_json(_with_ids(job_id, execution_id, record)))


def execution_record(job_id: JobID, execution_id: str, record: bytes) -> dict[str, Any]:
    """The JSON of the execution that `read_execution` reads, not validated. Raises ValueError."""
    return with_defaults(Execution, _with_ids(job_id, execution_id, record))


def _with_ids(job_id: JobID, execution_id: str, record: bytes) -> dict[str, Any]:
    value = {**_object(record), "ID": execution_id, "JobID": job_id}
    if (proposal := value.get("Proposal")) is not None:
        ids = {"JobID": job_id, "ExecutionID": execution_id, "NodeID": value.get("NodeID")}
        value["Proposal"] = {**proposal, **ids}
    return value


def event_row(event: HistoryEvent) -> tuple[object, ...]:
    """The values for `APPEND_EVENT`."""
    _, *values, _ = event
    return (*values, event.job_id)


def read_event(job_id: JobID, number: int, time: float, kind: str, *texts: str) -> HistoryEvent:
    """A row of `SELECT_EVENTS`. Raises ValueError."""
    message, state, execution_id, node_id = texts
    return HistoryEvent(
        job_id, number, time, EventKind(kind), message, state, ExecutionID(execution_id), PeerID(node_id)
    )


def _object(record: bytes) -> dict[str, Any]:
    value = from_json(record)
    if not isinstance(value, dict):
        raise ValueError("the record is no object")
    return value
