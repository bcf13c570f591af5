"""What the command line shows of jobs and executions, from the JSON of the API. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bacalhau_p2p.errors import InvalidCID, JobFailed, JobNotFinished
from bacalhau_p2p.model.event_text import news

JSON = dict[str, Any]

ENDED = frozenset({"Completed", "Failed", "Stopped"})
"""The terminal states of a job."""


def short_id(job_id: str) -> str:
    return job_id[:8]


def id_of(job: JSON) -> str:
    return str(job.get("ID", ""))


def name_of(job: JSON) -> str:
    """The name that its user gave a job; empty if there is none."""
    name = str(job.get("Name") or "")
    return "" if name == id_of(job) else name


def state_of(job: JSON) -> tuple[str, str]:
    """The state of a job, and the message that explains it."""
    state = job.get("State")
    if not isinstance(state, dict):
        return "Unknown", ""
    return str(state.get("StateType", "Unknown")), str(state.get("Message") or "")


def require_completed(job: JSON, executions: Sequence[JSON] = ()) -> None:
    """Raises JobFailed with the job's own message and the end of what it wrote, or JobNotFinished."""
    state, message = state_of(job)
    if state == "Completed":
        return
    short = short_id(id_of(job))
    if state in ENDED:
        reason = f"{message or 'no reason given'} (job {short} {state.lower()})"
        raise JobFailed(reason, last_lines=last_lines(executions))
    waiting = f"`bacalhau-p2p logs --follow {short}` shows what it does until it has ended"
    raise JobNotFinished(f"job {short} has no result yet: it is {state.lower()}; {waiting}")


def last_lines(executions: Sequence[JSON]) -> str:
    """The end of what the latest execution wrote that failed: it stands below the reason."""
    failed = [execution for execution in executions if state_of_execution(execution) == "Failed"]
    latest = max(failed, key=lambda execution: execution.get("ModifyTime") or 0, default=None)
    message = str(((latest or {}).get("ComputeState") or {}).get("Message") or "")
    return message.partition("\n")[2]


def state_of_execution(execution: JSON) -> str:
    return str((execution.get("ComputeState") or {}).get("State"))


def partition_of(execution: JSON) -> str:
    """Which partition of its job it does; empty if the job has only one."""
    return str(execution.get("PartitionIndex", 0)) if execution.get("PartitionCount", 1) != 1 else ""


def nodes_of(executions: Sequence[JSON]) -> list[str]:
    """The nodes whose bids were accepted."""
    return [
        str(execution.get("NodeID") or "")
        for execution in executions
        if state_of_execution(execution) not in ("BidReceived", "BidRejected")
    ]


def executions_of(job: JSON) -> list[JSON]:
    """The executions that a list of jobs includes."""
    items = (job.get("Executions") or {}).get("Items") or []
    return [item for item in items if isinstance(item, dict)]


def published_results(executions: Sequence[JSON]) -> dict[str, list[str]]:
    """The distinct CIDs that executions published, in order, each with the multiaddrs of its providers.

    What a node calls a CID but is none is left out.
    """
    published = [execution.get("PublishedResult") for execution in executions]
    return providers_by_cid([result for result in published if isinstance(result, dict)])


def providers_by_cid(results: Sequence[JSON]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in results:
        params: JSON = result.get("Params") or {}
        if cid := cid_of_text(params.get("CID")):
            found.setdefault(cid, []).extend(map(str, params.get("Providers") or []))
    return found


def cid_of_text(value: object) -> str:
    """A CID in its canonical form; empty for anything else."""
    if not isinstance(value, str):
        return ""
    from bacalhau_p2p.ipfs.format.cid import CID

    try:
        return str(CID.parse(value))
    except InvalidCID:
        return ""


def summary(job: JSON) -> str:
    """What a job runs, on one line: `Docker busybox:latest uname -a`."""
    tasks = job.get("Tasks")
    task = tasks[0] if isinstance(tasks, list) and tasks else None
    engine = task.get("Engine") if isinstance(task, dict) else None
    if not isinstance(engine, dict):
        return ""
    params: JSON = engine.get("Params") or {}
    kind = str(engine.get("Type", ""))
    words = [kind.capitalize()]
    if kind == "docker":
        words += [str(params.get("Image", "")), *map(str, params.get("Entrypoint") or [])]
    elif kind == "wasm":
        words.append(str(params.get("EntryModule", "")).rpartition("/")[2])
    words += map(str, params.get("Parameters") or [])
    return " ".join(" ".join(words).split())


def verified(job: JSON, executions: Sequence[JSON]) -> str:
    """Accepted results of all that were verified, such as `2/3`; empty if nothing is verified."""
    if str((job.get("Verifier") or {}).get("Type", "noop")) == "noop":
        return ""
    states = [state_of_execution(execution) for execution in executions]
    accepted = sum(state in {"ResultAccepted", "Completed"} for state in states)
    judged = accepted + states.count("ResultRejected")
    return f"{accepted}/{judged}" if judged else ""


def timeline_entry(event: JSON) -> str:
    """An event of a job's history on one line: when, what, on which node, and more of it."""
    return "  ".join(timeline_cells(event)).rstrip()


def timeline_cells(event: JSON) -> tuple[str, str, str, str]:
    """The parts of an entry, all but the last as wide as they are in any entry."""
    told: JSON = event.get("Event") or {}
    details: JSON = told.get("Details") or {}
    where = str(event.get("ExecutionID") or "")[:8]
    if node := str(details.get("NodeID") or "")[-8:]:
        where = f"{where} on {node}" if where else f"on {node}"
    kind, message = str(event.get("Kind", "")), str(told.get("Message") or "")
    if kind == "Ended" and (state := str(details.get("NewState") or "")):
        message = f"{state.lower()}: {message}" if message else state.lower()
    return _moment(event.get("Time")), f"{kind:<11}", f"{where:<20}", news(kind, message)


def _moment(text: object) -> str:
    """The local time of day of an RFC 3339 time, with milliseconds."""
    from datetime import datetime

    try:
        time = datetime.fromisoformat(str(text)).astimezone()
    except ValueError:
        return "?"
    return time.strftime("%H:%M:%S.") + f"{time.microsecond // 1000:03}"


def first_output(executions: Sequence[JSON]) -> JSON | None:
    """The beginning of what the first completed execution wrote, and its exit code."""
    completed = [e for e in executions if state_of_execution(e) == "Completed"]
    return next((e["RunOutput"] for e in completed if isinstance(e.get("RunOutput"), dict)), None)


def exit_codes(executions: Sequence[JSON]) -> list[int]:
    """The exit codes of the completed executions."""
    outputs = [e.get("RunOutput") for e in executions if state_of_execution(e) == "Completed"]
    codes = [output.get("ExitCode", 0) for output in outputs if isinstance(output, dict)]
    return [code for code in codes if isinstance(code, int)]
