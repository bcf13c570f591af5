"""Jobs, executions and results as JSON of the HTTP API, in Bacalhau's format.

The server uses the `*_to_json` functions, clients the `*_from_json` functions. These raise ValueError for
malformed values. They ignore unknown keys, so that an older client works with a newer server.
"""

from __future__ import annotations

import math
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import RUN_HAS_BEGUN, Execution, Job, Proposal, PublishedResult, RunOutput
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.job import NO_SPEC, JobSpec, SpecConfig
from bacalhau_p2p.model.partitions import Partition
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.model.usage import Usage

_SPEC_KEYS = frozenset(str(field.alias) for field in JobSpec.model_fields.values())
_NANOSECONDS = 1_000_000_000
FIRST_VERSION = 1
"""Of a job, and the only one: a changed job is another job here."""

_STATE_NUMBERS = {
    ExecutionState.BID_RECEIVED: 3,
    ExecutionState.BID_ACCEPTED: 5,
    ExecutionState.RESULT_PROPOSED: 7,
    ExecutionState.RESULT_ACCEPTED: 7,
    ExecutionState.BID_REJECTED: 8,
    ExecutionState.COMPLETED: 9,
    ExecutionState.RESULT_REJECTED: 10,
    ExecutionState.FAILED: 10,
    ExecutionState.LOST: 10,
    ExecutionState.CANCELLED: 11,
}
_RUNNING, _FAILED = 6, 10
"""Bacalhau's numbers for the states of executions: 3 AskForBidAccepted, 5 BidAccepted, 6 Running,
7 Publishing, 8 BidRejected, 9 Completed, 10 Failed, 11 Cancelled."""
_PENDING_DESIRED, _RUNNING_DESIRED, _STOPPED_DESIRED = 0, 1, 2

JSON = dict[str, Any]

_SCHEDULING = (
    EventKind.ANNOUNCED,
    EventKind.BID,
    EventKind.DECLINED,
    EventKind.BID_REJECTED,
    EventKind.ACCEPTED,
    EventKind.WAITING,
    EventKind.RETRIED,
)
_TOPICS = {EventKind.SUBMITTED: "Submission", **dict.fromkeys(_SCHEDULING, "Scheduling")}
"""Bacalhau's topics of events that are neither a change of the job's state nor of an execution's."""
_FAULTS = frozenset({EventKind.FAILED, EventKind.LOST})


def job_to_json(job: Job) -> JSON:
    """A job as in Bacalhau's API. As there, the name of a job without one is its id, and timeouts are
    whole seconds, here rounded up."""
    return job_record_to_json(job.model_dump(mode="json", by_alias=True))


def job_record_to_json(job: JSON) -> JSON:
    """The same from the JSON of a job, as `with_defaults` has it."""
    spec = job["Spec"]
    tasks = [
        {**task, "Timeouts": {name: math.ceil(seconds) for name, seconds in task["Timeouts"].items()}}
        for task in spec["Tasks"]
    ]
    return {
        "ID": job["ID"],
        **spec,
        "Tasks": tasks,
        "Name": spec["Name"] or job["ID"],
        "State": {"StateType": job["State"], "Message": job["Message"]},
        "RequesterID": job["RequesterID"],
        "CreateTime": _to_nanoseconds(job["Created"]),
        "ModifyTime": _to_nanoseconds(job["Modified"]),
        "Version": FIRST_VERSION,
        "Revision": job["Revision"],
    }


def job_from_json(value: object) -> Job:
    """The inverse of `job_to_json`."""
    job = _map(value, "a job")
    spec = JobSpec.from_wire({key: item for key, item in job.items() if key in _SPEC_KEYS})
    state = _map(job.get("State"), "State")
    return Job(
        id=JobID(_text(job, "ID")),
        spec=spec.replace(name="") if spec.name == _text(job, "ID") else spec,
        state=JobState(_text(state, "StateType")),
        message=_text(state, "Message", ""),
        requester_id=PeerID(_text(job, "RequesterID", "")),
        created=_from_nanoseconds(job, "CreateTime"),
        modified=_from_nanoseconds(job, "ModifyTime"),
        revision=_integer(job, "Revision", 1),
    )


def execution_to_json(execution: Execution, spec: JobSpec = NO_SPEC) -> JSON:
    """An execution of this job as in Bacalhau's API, with its state as text beside Bacalhau's number.

    `ResultCID` is the CID that its node proposed; empty if it has not.
    """
    partition = _WHOLE if execution.slot is None else spec.partition_of(execution.slot)
    return _execution_to_json(execution.model_dump(mode="json", by_alias=True), spec.namespace, partition)


def executions_to_json(executions: Sequence[JSON], spec: JSON) -> list[JSON]:
    """The same of several from their JSON, and that of the spec of their job, as `with_defaults` has them."""
    parts = JobSpec.from_wire(spec) if spec["Count"] > 1 else None
    return [
        _execution_to_json(
            each,
            spec["Namespace"],
            _WHOLE if parts is None or each["Slot"] is None else parts.partition_of(each["Slot"]),
        )
        for each in executions
    ]


_WHOLE = Partition(0, 1)
"""What an execution does as long as it has no slot, and in a job with `Count` 1."""


def _execution_to_json(execution: JSON, namespace: str, partition: Partition) -> JSON:
    proposal, published, slot = execution["Proposal"], execution["Published"], execution["Slot"]
    state, message = ExecutionState(execution["State"]), execution["Message"]
    usage = execution["FailedUsage"] or (proposal["Usage"] if proposal is not None else None)
    inputs = {"InputBytes": execution["InputBytes"], "LocalInputBytes": execution["LocalInputBytes"]}
    error = message if _STATE_NUMBERS[state] == _FAILED else ""
    return {
        "ID": execution["ID"],
        "Namespace": namespace,
        "EvalID": "",
        "Name": "",
        "NodeID": execution["NodeID"],
        "JobID": execution["JobID"],
        "JobVersion": FIRST_VERSION,
        "AllocatedResources": {"Tasks": {}},
        "DesiredState": {"StateType": _desired(state), "Message": ""},
        "ComputeState": {
            "StateType": _state_number(state, message),
            "State": execution["State"],
            "Message": message,
        },
        "PublishedResult": _location_to_json(published) if published else {"Type": "", "Params": {}},
        "RunOutput": _output_to_json(proposal["Output"], error) if proposal else None,
        "PreviousExecution": "",
        "NextExecution": "",
        "FollowupEvalID": "",
        "PartitionIndex": partition.index,
        **({"PartitionCount": partition.count} if partition.count > 1 else {}),
        **({"Slot": slot} if slot is not None else {}),
        "Revision": 1,
        "CreateTime": _to_nanoseconds(execution["Created"]),
        "ModifyTime": _to_nanoseconds(execution["Modified"]),
        "Walls": proposal["Walls"] if proposal else [],
        "ResultCID": proposal["ResultCID"] if proposal else "",
        **(inputs if execution["InputBytes"] else {}),
        **({"FailedResultCID": execution["FailedCID"]} if execution["FailedCID"] else {}),
        **({"Usage": {k: v for k, v in usage.items() if v is not None}} if usage is not None else {}),
    }


def execution_from_json(value: object) -> Execution:
    """The inverse of `execution_to_json`, apart from output that is not UTF-8."""
    item = _map(value, "an execution")
    state = _map(item.get("ComputeState"), "ComputeState")
    job_id, execution_id = JobID(_text(item, "JobID")), ExecutionID(_text(item, "ID"))
    node_id = PeerID(_text(item, "NodeID"))
    proposal = None
    usage = Usage.from_wire(item["Usage"]) if item.get("Usage") else None
    if cid := _text(item, "ResultCID", ""):
        proposal = Proposal(
            job_id=job_id,
            execution_id=execution_id,
            node_id=node_id,
            result_cid=cid,
            output=_output_from_json(item.get("RunOutput")),
            walls=tuple(str(wall) for wall in item.get("Walls") or ()),
            usage=usage,
        )
    published = _map(item.get("PublishedResult"), "PublishedResult")
    return Execution(
        id=execution_id,
        job_id=job_id,
        node_id=node_id,
        state=ExecutionState(_text(state, "State")),
        message=_text(state, "Message", ""),
        created=_from_nanoseconds(item, "CreateTime"),
        modified=_from_nanoseconds(item, "ModifyTime"),
        proposal=proposal,
        published=result_from_json(published) if published.get("Type") else None,
        slot=_integer(item, "Slot", 0) if "Slot" in item else None,
        input_bytes=_integer(item, "InputBytes", 0),
        local_input_bytes=_integer(item, "LocalInputBytes", 0),
        failed_usage=usage if proposal is None else None,
        failed_cid=_text(item, "FailedResultCID", "") or None,
    )


def event_to_json(event: HistoryEvent) -> JSON:
    """An event as in Bacalhau's job histories. Our own word for it is `Kind`."""
    level = "ExecutionLevel" if event.execution_id else "JobLevel"
    details = {"NewState": event.state, "NodeID": event.node_id}
    if event.kind in _FAULTS or event.state == JobState.FAILED:
        details["IsError"] = "true"
    time = datetime.fromtimestamp(event.time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {
        **({"Position": event.place} if event.place else {}),
        "SeqNum": event.number,
        "Type": level,
        "JobID": event.job_id,
        "JobVersion": 1,
        **({"ExecutionID": event.execution_id} if event.execution_id else {}),
        "Kind": event.kind.value,
        "Event": {
            "Message": event.message,
            "Topic": _TOPICS.get(event.kind, "Execution" if event.execution_id else "State Update"),
            "Timestamp": time,
            "Details": {name: text for name, text in details.items() if text},
        },
        "Time": time,
    }


def event_from_json(value: object) -> HistoryEvent:
    """The inverse of `event_to_json`."""
    item = _map(value, "an event")
    event = _map(item.get("Event"), "Event")
    details = _map(event.get("Details"), "Details")
    return HistoryEvent(
        job_id=JobID(_text(item, "JobID", "")),
        number=_integer(item, "SeqNum", 0),
        time=datetime.fromisoformat(_text(item, "Time")).timestamp(),
        kind=EventKind(_text(item, "Kind")),
        message=_text(event, "Message", ""),
        state=_text(details, "NewState", ""),
        execution_id=ExecutionID(_text(item, "ExecutionID", "")),
        node_id=PeerID(_text(details, "NodeID", "")),
        place=_integer(item, "Position", 0),
    )


def result_to_json(result: PublishedResult) -> JSON:
    """`{"Type", "Params"}` of the location of a result. `Params.CID` is always present."""
    return _location_to_json(result.model_dump(mode="json", by_alias=True))


def _location_to_json(result: JSON) -> JSON:
    location = result["Location"]
    return {"Type": location["Type"], "Params": {**location["Params"], "CID": result["CID"]}}


def result_from_json(value: object) -> PublishedResult:
    location = SpecConfig.from_wire({key: _map(value, "a result").get(key) for key in ("Type", "Params")})
    return PublishedResult(cid=_text(location.params, "CID"), location=location)


def _desired(state: ExecutionState) -> int:
    if state.terminal:
        return _STOPPED_DESIRED
    return _PENDING_DESIRED if state is ExecutionState.BID_RECEIVED else _RUNNING_DESIRED


def _state_number(state: ExecutionState, message: str) -> int:
    running = state is ExecutionState.BID_ACCEPTED and message == RUN_HAS_BEGUN
    return _RUNNING if running else _STATE_NUMBERS[state]


def _output_to_json(output: JSON, error: str) -> JSON:
    # "stderr" is Bacalhau's spelling; its clients in Python know no other.
    return {
        "ExitCode": output["ExitCode"],
        "Stdout": urlsafe_b64decode(output["Stdout"]).decode("utf-8", "replace"),
        "StdoutTruncated": output["StdoutTruncated"],
        "stderr": urlsafe_b64decode(output["Stderr"]).decode("utf-8", "replace"),
        "StderrTruncated": output["StderrTruncated"],
        "ErrorMsg": error,
    }


def _output_from_json(value: object) -> RunOutput:
    if value is None:
        return RunOutput()
    output = _map(value, "RunOutput")
    return RunOutput(
        exit_code=_integer(output, "ExitCode", 0),
        stdout=_text(output, "Stdout", "").encode("utf-8", "replace"),
        stderr=_text(output, "stderr", "").encode("utf-8", "replace"),
        stdout_truncated=bool(output.get("StdoutTruncated")),
        stderr_truncated=bool(output.get("StderrTruncated")),
    )


def _to_nanoseconds(seconds: float) -> int:
    return round(seconds * float(_NANOSECONDS))  # of a text that stands there by mistake it makes no long one


def _from_nanoseconds(value: Mapping[str, Any], key: str) -> float:
    return _integer(value, key, 0) / _NANOSECONDS


def _map(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is not a map")
    return value


def _text(value: Mapping[str, Any], key: str, default: str | None = None) -> str:
    text = value.get(key, default)
    if not isinstance(text, str):
        raise ValueError(f"{key} is not text")
    return text


def _integer(value: Mapping[str, Any], key: str, default: int) -> int:
    number = value.get(key, default)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f"{key} is not an integer")
    return number
