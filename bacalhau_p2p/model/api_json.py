"""Jobs, executions, results and nodes as JSON of the HTTP API, in Bacalhau's format.

The server uses the `*_to_json` functions, clients the `*_from_json` functions. These raise ValueError for
malformed values. They ignore unknown keys, so that an older client works with a newer server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job, Proposal, PublishedResult, RunOutput
from bacalhau_p2p.model.job import JobSpec, SpecConfig
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.model.state import ExecutionState, JobState

_SPEC_KEYS = frozenset(str(field.alias) for field in JobSpec.model_fields.values())
_NANOSECONDS = 1_000_000_000

JSON = dict[str, Any]


def job_to_json(job: Job) -> JSON:
    """A job as in Bacalhau's API. As there, the name of a job without one is its id."""
    spec = job.spec.model_dump(mode="json", by_alias=True)
    return {
        "ID": job.id,
        **spec,
        "Name": job.spec.name or job.id,
        "State": {"StateType": job.state.value, "Message": job.message},
        "RequesterID": job.requester_id,
        "CreateTime": _to_nanoseconds(job.created),
        "ModifyTime": _to_nanoseconds(job.modified),
        "Revision": job.revision,
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


def execution_to_json(execution: Execution) -> JSON:
    """An execution as JSON. `ResultCID` is the CID that its node proposed; empty if it has not."""
    proposal, published = execution.proposal, execution.published
    inputs = {"InputBytes": execution.input_bytes, "LocalInputBytes": execution.local_input_bytes}
    return {
        "ID": execution.id,
        "JobID": execution.job_id,
        "NodeID": execution.node_id,
        "ComputeState": {"StateType": execution.state.value, "Message": execution.message},
        "CreateTime": _to_nanoseconds(execution.created),
        "ModifyTime": _to_nanoseconds(execution.modified),
        "RunOutput": _output_to_json(proposal.output) if proposal else None,
        "Walls": list(proposal.walls) if proposal else [],
        "ResultCID": proposal.result_cid if proposal else "",
        "PublishedResult": result_to_json(published) if published else None,
        **(inputs if execution.input_bytes else {}),
    }


def execution_from_json(value: object) -> Execution:
    """The inverse of `execution_to_json`, apart from output that is not UTF-8."""
    item = _map(value, "an execution")
    state = _map(item.get("ComputeState"), "ComputeState")
    job_id, execution_id = JobID(_text(item, "JobID")), ExecutionID(_text(item, "ID"))
    node_id = PeerID(_text(item, "NodeID"))
    proposal = None
    if cid := _text(item, "ResultCID", ""):
        proposal = Proposal(
            job_id=job_id,
            execution_id=execution_id,
            node_id=node_id,
            result_cid=cid,
            output=_output_from_json(item.get("RunOutput")),
            walls=tuple(str(wall) for wall in item.get("Walls") or ()),
        )
    published = item.get("PublishedResult")
    return Execution(
        id=execution_id,
        job_id=job_id,
        node_id=node_id,
        state=ExecutionState(_text(state, "StateType")),
        message=_text(state, "Message", ""),
        created=_from_nanoseconds(item, "CreateTime"),
        modified=_from_nanoseconds(item, "ModifyTime"),
        proposal=proposal,
        published=None if published is None else result_from_json(published),
        input_bytes=_integer(item, "InputBytes", 0),
        local_input_bytes=_integer(item, "LocalInputBytes", 0),
    )


def result_to_json(result: PublishedResult) -> JSON:
    """`{"Type", "Params"}` of the location of a result. `Params.CID` is always present."""
    return {"Type": result.location.type, "Params": {**result.location.params, "CID": result.cid}}


def result_from_json(value: object) -> PublishedResult:
    location = SpecConfig.from_wire({key: _map(value, "a result").get(key) for key in ("Type", "Params")})
    return PublishedResult(cid=_text(location.params, "CID"), location=location)


def node_to_json(node: NodeInfo) -> JSON:
    return node.model_dump(mode="json", by_alias=True)


def node_from_json(value: object) -> NodeInfo:
    return NodeInfo.from_wire(value)


def _output_to_json(output: RunOutput) -> JSON:
    return {
        "ExitCode": output.exit_code,
        "Stdout": output.stdout.decode("utf-8", "replace"),
        "Stderr": output.stderr.decode("utf-8", "replace"),
        "StdoutTruncated": output.stdout_truncated,
        "StderrTruncated": output.stderr_truncated,
    }


def _output_from_json(value: object) -> RunOutput:
    if value is None:
        return RunOutput()
    output = _map(value, "RunOutput")
    return RunOutput(
        exit_code=_integer(output, "ExitCode", 0),
        stdout=_text(output, "Stdout", "").encode("utf-8", "replace"),
        stderr=_text(output, "Stderr", "").encode("utf-8", "replace"),
        stdout_truncated=bool(output.get("StdoutTruncated")),
        stderr_truncated=bool(output.get("StderrTruncated")),
    )


def _to_nanoseconds(seconds: float) -> int:
    return round(seconds * _NANOSECONDS)


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
