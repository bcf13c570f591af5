"""Jobs and executions as rows of the requester's database. Nothing is in a row twice.

A row has the columns by which it is found, and the rest of the record as JSON, without what has its default
value. So a default that changes needs a migration: a test keeps watch over them.
"""

from __future__ import annotations

import json
from typing import Any

from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Execution, Job

JOB_COLUMNS = "id, state, created, modified, record"
"""What `read_job` takes, in this order."""

_IN_JOB_COLUMNS = {"id", "state", "created", "modified"}
_IN_EXECUTION_COLUMNS: Any = {"id": True, "job_id": True, "proposal": {"job_id", "execution_id", "node_id"}}
"""A proposal is that of its execution, or the machine refuses it."""


def job_json(job: Job) -> bytes:
    """The record of a job without its columns."""
    return job.model_dump_json(by_alias=True, exclude_defaults=True, exclude=_IN_JOB_COLUMNS).encode()


def read_job(job_id: str, state: str, created: float, modified: float, record: bytes) -> Job:
    """Raises ValueError."""
    columns = {"ID": job_id, "State": state, "Created": created, "Modified": modified}
    return Job.model_validate_json(json.dumps({**_object(record), **columns}))


def execution_json(execution: Execution) -> bytes:
    """The record of an execution without its id, its job's id, and their repetitions."""
    return execution.model_dump_json(
        by_alias=True, exclude_defaults=True, exclude=_IN_EXECUTION_COLUMNS
    ).encode()


def read_execution(job_id: JobID, execution_id: str, record: bytes) -> Execution:
    """Raises ValueError."""
    value = {**_object(record), "ID": execution_id, "JobID": job_id}
    if (proposal := value.get("Proposal")) is not None:
        ids = {"JobID": job_id, "ExecutionID": execution_id, "NodeID": value.get("NodeID")}
        value["Proposal"] = {**proposal, **ids}
    return Execution.model_validate_json(json.dumps(value))


def _object(record: bytes) -> dict[str, Any]:
    value = json.loads(record)
    if not isinstance(value, dict):
        raise ValueError("the record is no object")
    return value
