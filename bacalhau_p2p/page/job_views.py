"""The views of jobs: a filtered list, and one job with its executions and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.label_filter import label_filter
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.model.yaml_text import yaml_text
from bacalhau_p2p.node import Node
from bacalhau_p2p.page.job_rows import JobRow, has_text, job_row, title_of
from bacalhau_p2p.page.view import Strings, Values
from bacalhau_p2p.requester.store import JobQuery
from bacalhau_p2p.runtime.text import printable

PAGE = 50
"""Jobs on one page."""

EXECUTIONS = 100
"""Executions on one page of a job: to draw a thousand takes a quarter of a second."""
EVENTS = 500
"""Events of a job that its page shows, the first ones."""


MAX_DIGITS = 9
"""Digits of the number of executions that are left out."""


class Output(NamedTuple):
    """A stream that an execution wrote."""

    name: str
    node: PeerID
    text: str
    cut: bool


class Group(NamedTuple):
    """Executions that proposed the same result."""

    partition: int | None
    """Which partition they did, if the job has several."""
    cid: str
    states: Sequence[tuple[PeerID, ExecutionState]]
    proposals: int
    """How many executions proposed a result for the same partition."""


def rows_of(node: Node, jobs: Sequence[Job]) -> list[JobRow]:
    now = node.clock()
    return [job_row(job, node.requester.briefs(job.id), now) for job in jobs]


async def job_list(node: Node, names: Strings, query: Strings) -> Values:
    """`names` has nothing; `query` may have `state`, `label`, `text` and `after`."""
    state, label, text, after = (query.get(name, "").strip() for name in ("state", "label", "text", "after"))
    labelled = label_filter([label] if label else [])

    def matching(job: Job) -> bool:
        return labelled(job.spec.labels) and has_text(job, text)

    try:
        wanted = JobQuery(
            state=JobState(state) if state else None, matching=matching if label or text else None
        )
        page = node.requester.jobs(wanted, limit=PAGE, after=after)
    except ValueError as error:
        raise ApiError(str(error), status=400) from error
    given = {name: query[name] for name in ("state", "label", "text") if query.get(name)}
    return {
        "rows": rows_of(node, page.jobs),
        "states": ["", *map(str, JobState)],
        "state": state,
        "label": label,
        "text": text,
        "first": f"/jobs?{urlencode(given)}" if after else "",
        "following": f"/jobs?{urlencode({**given, 'after': page.next_token})}" if page.next_token else "",
        "scanned": bool(page.next_token) and len(page.jobs) < PAGE,
    }


async def job_detail(node: Node, names: Strings, query: Strings) -> Values:
    """`names["job_id"]` is an id or the beginning of one; `query` may have `from`: how many executions are
    left out. Raises UnknownJob, AmbiguousID, ApiError."""
    job_id = node.requester.resolve(names["job_id"])
    job, executions = node.requester.job(job_id), await node.requester.executions(job_id)
    now = node.clock()
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    ordered = sorted(executions, key=lambda e: (e.slot is None, e.slot, e.created))
    first = _number(query.get("from", "0"))
    shown = ordered[first : first + EXECUTIONS]
    partitions = _partitions(job, ordered)
    here = {partitions.get(each.id) for each in shown}
    proposed = [each for each in executions if each.proposal is not None and partitions.get(each.id) in here]
    published = [each.published.cid for each in proposed if each.published is not None]
    return {
        "job": job,
        "name": title_of(job),
        "age": max(0.0, now - job.created),
        "lasted": max(0.0, (job.modified if job.state.terminal else now) - job.created),
        "executions": shown,
        "count": len(ordered),
        "earlier": f"/jobs/{job_id}?from={max(0, first - EXECUTIONS)}" if first else "",
        "later": f"/jobs/{job_id}?from={first + EXECUTIONS}" if first + EXECUTIONS < len(ordered) else "",
        "number": first,
        "partitions": partitions,
        "results": list(dict.fromkeys(published)),
        "running": not job.state.terminal,
        "verified": job.spec.verifier.type != "noop",
        "groups": _groups(proposed, partitions),
        "outputs": _outputs(proposed),
        "events": (await node.requester.history(job_id, limit=EVENTS)).events,
        "yaml": yaml_text(spec),
    }


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise ApiError(f"'from' is {printable(text)!r}; use a number", status=400)
    return int(text)


def _partitions(job: Job, executions: Sequence[Execution]) -> Mapping[ExecutionID, int]:
    """Which partition each execution does; empty for a job that has only one."""
    if job.spec.partitions == 1:
        return {}
    return {each.id: job.spec.partition_of(each.slot).index for each in executions if each.slot is not None}


def _groups(proposed: Sequence[Execution], partitions: Mapping[ExecutionID, int]) -> list[Group]:
    """By partition, the largest of each first."""
    found: dict[int | None, dict[str, list[tuple[PeerID, ExecutionState]]]] = {}
    for execution in proposed:
        assert execution.proposal is not None
        of_partition = found.setdefault(partitions.get(execution.id), {})
        of_partition.setdefault(execution.proposal.result_cid, []).append(
            (execution.node_id, execution.state)
        )
    groups = [
        Group(partition, cid, states, sum(map(len, by_cid.values())))
        for partition, by_cid in found.items()
        for cid, states in by_cid.items()
    ]
    return sorted(groups, key=lambda group: (group.partition or 0, -len(group.states)))


def _outputs(proposed: Sequence[Execution]) -> list[Output]:
    """What the first completed execution wrote, or without one the latest."""
    completed = [e for e in proposed if e.state == ExecutionState.COMPLETED]
    shown = completed[:1] or proposed[-1:]
    found = []
    for execution in shown:
        assert execution.proposal is not None
        output = execution.proposal.output
        for name, data, cut in (
            ("stdout", output.stdout, output.stdout_truncated),
            ("stderr", output.stderr, output.stderr_truncated),
        ):
            if data:
                found.append(Output(name, execution.node_id, data.decode("utf-8", "replace"), cut))
    return found
