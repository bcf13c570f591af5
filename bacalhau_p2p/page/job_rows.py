"""Jobs as rows of a table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bacalhau_p2p.model.base import JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.requester.rows import ExecutionBrief

MAX_MESSAGE = 160
"""Characters of a message in a table."""
MAX_SHOWN_NODES = 4
_WORKING = frozenset(
    {
        ExecutionState.BID_ACCEPTED,
        ExecutionState.RESULT_PROPOSED,
        ExecutionState.RESULT_ACCEPTED,
        ExecutionState.COMPLETED,
    }
)


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job in a table. Times in seconds."""

    id: JobID
    name: str
    state: JobState
    age: float
    lasted: float
    done: int
    count: int
    runs: str
    nodes: Sequence[PeerID]
    """Those that work on it, or did; at most MAX_SHOWN_NODES."""
    more_nodes: int
    """How many more there are."""
    message: str


def job_row(job: Job, executions: Sequence[ExecutionBrief], now: UnixSeconds) -> JobRow:
    working = [execution for execution in executions if execution.state in _WORKING]
    nodes = list(dict.fromkeys(execution.node_id for execution in working))
    end = job.modified if job.state.terminal else now
    return JobRow(
        id=job.id,
        name=title_of(job),
        state=job.state,
        age=max(0.0, now - job.created),
        lasted=max(0.0, end - job.created),
        done=sum(execution.state == ExecutionState.COMPLETED for execution in executions),
        count=_wanted(job.spec, executions),
        runs=runs(job.spec),
        nodes=nodes[:MAX_SHOWN_NODES],
        more_nodes=max(0, len(nodes) - MAX_SHOWN_NODES),
        message=shortened(job.message, MAX_MESSAGE),
    )


def _wanted(spec: JobSpec, executions: Sequence[ExecutionBrief]) -> int:
    """How many executions the job is to have: of an ops job, one for each node that took a slot of it."""
    if spec.is_ops:
        return len({each.slot for each in executions if each.slot is not None})
    return spec.count * spec.group_size if spec.divided else spec.count


def title_of(job: Job) -> str:
    """Its name; without one, its id."""
    return job.spec.name or job.id


def runs(spec: JobSpec) -> str:
    """What it runs: `docker busybox:latest`, `wasm count.wasm`, `noop`."""
    engine = spec.task.engine
    params = engine.params
    what = ""
    if engine.type == "docker":
        what = str(params.get("Image", ""))
    elif engine.type == "wasm":
        module = params.get("EntryModule")
        what = str(module).rpartition("/")[2] if isinstance(module, str) else ""
    return shortened(f"{engine.type} {what}".strip(), 60)


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def has_text(job: Job, text: str) -> bool:
    """Whether its name, id, message, image or module contains the text, in any letter case."""
    wanted = text.casefold()
    return any(wanted in each.casefold() for each in (job.id, job.spec.name, job.message, runs(job.spec)))
