"""Jobs, executions and events as rows of the requester's database. Nothing is in a row twice.

A row has the columns by which it is found, and the rest of the record as JSON, without what has its default
value. So a default that changes needs a migration: a test keeps watch over them. Once an execution has ended,
its record is packed (`components/packing.py`).

An event refers to the row of the execution that it is about, which has the ids of both the execution and its
node. What is told of an execution or a node without such a row has their ids itself. The names of states and
kinds, and the id of this requester, are in the table `name`, and other tables have their numbers.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Set
from itertools import chain
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from bacalhau_p2p.components.packing import Packed, Packer, add_dictionary
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.job import DEFAULT_NAMESPACE
from bacalhau_p2p.model.omitted_defaults import with_defaults
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.runtime.database import run_statements, transaction, write_rows

ENDED = f"state IN ({', '.join(repr(str(state)) for state in JobState if state.terminal)})"
"""Whether the job of a row has ended, in SQL."""

_SCHEMA = f"""
CREATE TABLE name (number INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE job (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, created REAL NOT NULL,
    modified REAL NOT NULL, token TEXT, requester INTEGER NOT NULL, name TEXT, record TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX job_by_token ON job (token) WHERE token IS NOT NULL;
CREATE INDEX job_by_name ON job (name) WHERE name IS NOT NULL;
CREATE INDEX job_unfinished ON job (number) WHERE NOT ({ENDED});
CREATE INDEX job_ended ON job (modified) WHERE {ENDED};
CREATE TABLE execution (
    number INTEGER PRIMARY KEY, job INTEGER NOT NULL, id TEXT NOT NULL, node TEXT NOT NULL,
    state INTEGER NOT NULL, slot INTEGER, record ANY NOT NULL, UNIQUE (job, id)
) STRICT;
CREATE TABLE event (
    place INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL, number INTEGER NOT NULL,
    time REAL NOT NULL, kind INTEGER NOT NULL, message TEXT NOT NULL, state INTEGER, execution INTEGER,
    execution_id TEXT, node TEXT
) STRICT;
CREATE UNIQUE INDEX event_of_job ON event (job, number);
"""
"""Events have a place among those of all jobs. No place is given twice, so that what is missing between two
of them was deleted."""
_DICTIONARY = b"".join(
    [
        b'"Permanent":true,"Drained":true,"OutlivesNode":true,"InputBytes":1,"LocalInputBytes":1,"FailedCID":"',
        b'"FailedUsage":{"NetworkBytesReceived":1,"NetworkBytesSent":1,"InputBytesFetched":1,"InputBytesLocal":',
        b'"Output":{"ExitCode":1,"Stdout":"',
        b'"Stderr":"StdoutTruncated":true,"StderrTruncated":true},"Walls":["landlock","seccomp"],',
        b'{"Message":"cancelled{"Message":"its bid was not needed: no slot is open{"Message":',
        b'"other bids were better","Created":17,"Modified":17',
        b'{"Message":"published","Created":17,"Modified":17,"Proposal":{',
        b'"ResultCID":"bafybei","Entries":{"outputs":"bafybei',
        b'"exitCode":"bafkreic75tvwn76in44nsutynrwws3dzyln4eoo5j2i3izzj245cp62x5e",',
        b'"stderr":"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku","stdout":"bafkrei',
        b'"},"Started":17,"Ended":17,"Usage":{"CPUSeconds":0.0,"PeakMemory":0,"ResultBytes":1}},',
        b'"Published":{"CID":"bafybei","Location":{"Type":"ipfs","Params":{"CID":"bafybei',
        b'"Providers":["/ip4/127.0.0.1/tcp/1235/p2p/12D3KooW"]}}}}',
    ]
)
"""What records share, the most frequent last; two CIDs are those of the exit code 0 and of an empty stream.
A new database gets it, and keeps it: a change of it needs no migration."""
_NAMES = frozenset(map(str, chain(EventKind, JobState, ExecutionState)))

ADD_NAME = "INSERT OR IGNORE INTO name (text) VALUES (?)"
JOB_COLUMNS = "id, state, created, modified, requester, record"
EXECUTION_COLUMNS = "id, node, state, slot, record"
"""What `Rows` reads a job and an execution from, in this order."""
APPEND_EVENT = """
INSERT INTO event (job, number, time, kind, message, state, execution, execution_id, node)
SELECT job.number, :number, :time, :kind, :message, :state, execution.number,
    iif(execution.number IS NULL, nullif(:execution, ''), NULL),
    iif(execution.number IS NULL, nullif(:node, ''), NULL)
FROM job LEFT JOIN execution
    ON execution.job = job.number AND execution.id = :execution AND execution.node = :node
WHERE job.id = :job
"""
"""Of a job that was deleted nothing is told any more."""
EVENT_COLUMNS = """
event.number, event.time, event.kind, event.message, event.state,
coalesce(event.execution_id, execution.id), coalesce(event.node, execution.node)
"""
JOIN_EXECUTION = "LEFT JOIN execution ON execution.number = event.execution AND execution.job = event.job"
"""With this, EVENT_COLUMNS are what `Rows` reads an event from."""
DETACH_EVENTS = """
UPDATE event
SET execution = NULL, (execution_id, node) = (SELECT id, node FROM execution WHERE number = :number)
WHERE execution = :number AND job = (SELECT job FROM execution WHERE number = :number)
"""
"""Makes the events of an execution independent of its row, which is about to be deleted."""

_IN_JOB_COLUMNS = {"id", "state", "created", "modified", "requester_id"}
_IN_EXECUTION_COLUMNS: Any = {
    "id": True,
    "job_id": True,
    "node_id": True,
    "state": True,
    "slot": True,
    "proposal": {"job_id", "execution_id", "node_id"},
}
"""A proposal is that of its execution, or the machine refuses it."""


class ExecutionBrief(NamedTuple):
    """What a list of jobs shows of an execution."""

    state: ExecutionState
    node_id: PeerID
    slot: int | None


def create_rows(db: sqlite3.Connection) -> None:
    """Make the tables in a new database, within the open transaction."""
    run_statements(db, _SCHEMA)
    add_dictionary(db, _DICTIONARY)
    _add_names(db, _NAMES)


class Rows:
    """Makes rows of records, and records of rows. Whatever reads a row raises ValueError if it cannot be."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Adds the names of states and kinds that the program which made the database did not know."""
        self._db = db
        self._packer = Packer(db)
        self._names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self.read_names()
        if unknown := _NAMES - self._numbers.keys():
            with transaction(db, power_safe=False):
                _add_names(db, unknown)
            self.read_names()

    def read_names(self) -> None:
        """Read the names that were committed."""
        self._names = dict(self._db.execute("SELECT number, text FROM name"))
        self._numbers = {name: number for number, name in self._names.items()}

    def has_named(self, requester_id: PeerID) -> bool:
        """Whether this is known to be in the table `name`."""
        return requester_id in self._numbers

    def of_job(self, job: Job) -> tuple[object, ...]:
        """The values of JOB_COLUMNS, but with the id of its requester instead of the number of this."""
        record = job.model_dump_json(by_alias=True, exclude_defaults=True, exclude=_IN_JOB_COLUMNS)
        return (job.id, job.state, job.created, job.modified, job.requester_id, record)

    def job(self, *columns: Any) -> Job:
        """The job of a row."""
        return Job.model_validate_json(json.dumps(self._with_job_columns(*columns)))

    def job_json(self, *columns: Any) -> dict[str, Any]:
        """The JSON of the job of a row, not validated."""
        return with_defaults(Job, self._with_job_columns(*columns))

    def of_execution(self, execution: Execution) -> tuple[object, ...]:
        """The values of EXECUTION_COLUMNS."""
        record = execution.model_dump_json(
            by_alias=True, exclude_defaults=True, exclude=_IN_EXECUTION_COLUMNS
        )
        packed = self._packer.pack(record) if execution.state.terminal else record
        return (execution.id, execution.node_id, self._numbers[execution.state], execution.slot, packed)

    def execution(self, job_id: JobID, *columns: Any) -> Execution:
        """The execution of a row."""
        return Execution.model_validate_json(to_json(self._with_execution_columns(job_id, *columns)))

    def execution_json(self, job_id: JobID, *columns: Any) -> dict[str, Any]:
        """The JSON of the execution of a row, not validated."""
        return with_defaults(Execution, self._with_execution_columns(job_id, *columns))

    def brief(self, node: str, state: int, slot: int | None) -> ExecutionBrief:
        """What these columns tell of an execution."""
        return ExecutionBrief(ExecutionState(self._name(state)), PeerID(node), slot)

    def of_event(self, event: HistoryEvent) -> dict[str, object]:
        """The values for `APPEND_EVENT`."""
        return {
            "job": event.job_id,
            "number": event.number,
            "time": event.time,
            "kind": self._numbers[event.kind],
            "message": event.message,
            "state": self._numbers[event.state] if event.state else None,
            "execution": event.execution_id,
            "node": event.node_id,
        }

    def event(self, job_id: JobID, *columns: Any) -> HistoryEvent:
        """An event from EVENT_COLUMNS."""
        number, time, kind, message, state, execution_id, node = columns
        return HistoryEvent(
            job_id,
            number,
            time,
            EventKind(self._name(kind)),
            message,
            "" if state is None else self._name(state),
            ExecutionID(execution_id or ""),
            PeerID(node or ""),
        )

    def _with_job_columns(
        self, job_id: str, state: str, created: float, modified: float, requester: int, record: str
    ) -> dict[str, Any]:
        value = _object(record)
        value.update(ID=job_id, State=state, Created=created, Modified=modified)
        value["RequesterID"] = self._name(requester)
        return value

    def _with_execution_columns(
        self, job_id: JobID, execution_id: str, node: str, state: int, slot: int | None, record: Packed
    ) -> dict[str, Any]:
        value = _object(self._packer.unpack(record))
        value.update(ID=execution_id, JobID=job_id, NodeID=node, State=self._name(state), Slot=slot)
        if (proposal := value.get("Proposal")) is not None:
            proposal.update(JobID=job_id, ExecutionID=execution_id, NodeID=node)
        return value

    def _name(self, number: int) -> str:
        if number not in self._names:
            self.read_names()
        if number not in self._names:
            raise ValueError(f"no name has the number {number}")
        return self._names[number]


def _add_names(db: sqlite3.Connection, names: Set[str]) -> None:
    write_rows(db, ADD_NAME, [(name,) for name in sorted(names)])


def labels_of_job(record: str) -> tuple[Mapping[str, str], str]:
    """The labels and the namespace in the record of a job, without reading all of it as a job.

    Those of a job without any if the record cannot be read."""
    try:
        spec = _object(record).get("Spec") or {}
        return spec.get("Labels") or {}, spec.get("Namespace") or DEFAULT_NAMESPACE
    except (ValueError, AttributeError):
        return {}, DEFAULT_NAMESPACE


def _object(record: Packed) -> dict[str, Any]:
    value = from_json(record)
    if not isinstance(value, dict):
        raise ValueError("the record is no object")
    return value
