"""`/api/v1/orchestrator`: jobs and the nodes of the network."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated

import trio
from fastapi import APIRouter, Query, Request, Response

from bacalhau_p2p.api.bodies.jobs import (
    Difference,
    Evaluation,
    ExecutionPage,
    JobAnswer,
    JobPage,
    Rerun,
    RerunSubmitted,
    ResultPage,
    Stop,
    Submission,
    Submitted,
)
from bacalhau_p2p.api.direct_routes import direct
from bacalhau_p2p.api.documented import one_of
from bacalhau_p2p.api.history import HistoryQuery, add_history_routes, history
from bacalhau_p2p.api.job_changes import compared, stop_reason
from bacalhau_p2p.api.json_bodies import JSON, MAX_SMALL_BODY, json_object, json_response
from bacalhau_p2p.api.logs import log_routes
from bacalhau_p2p.api.nodes import node_routes
from bacalhau_p2p.api.openapi import takes
from bacalhau_p2p.api.result_archives import archive_urls, result_archive_routes, signing_key
from bacalhau_p2p.api.submissions import submission
from bacalhau_p2p.errors import ApiError, JobEnded, UnknownJob
from bacalhau_p2p.model.api_json import (
    FIRST_VERSION,
    executions_to_json,
    job_record_to_json,
    job_to_json,
)
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.label_filter import label_filter
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.node import Node
from bacalhau_p2p.requester.store import EXECUTIONS_AT_ONCE, MAX_RECORDS, ORDERS, SCAN, JobQuery

MAX_WAIT = 300.0
"""Seconds that one request may wait for a job to end."""
DEFAULT_PAGE = 10
MAX_PAGE = 1000
"""Jobs or executions on one page."""
MAX_SCANNED = 20_000
"""Jobs that one request looks at when it searches for those with some labels; less than a second."""

_EXECUTION_ORDERS = ("created_at", "modified_at", "id", "state")
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)
"""What making JSON of a record raises that is not what it should be."""

Labels = Annotated[list[str] | None, Query()]
Limit = Annotated[int, Query(ge=0, le=MAX_PAGE)]
"""0 means as many as usual."""


def job_routes(node: Node) -> APIRouter:
    """Those of jobs, some of which are direct."""
    jobs = APIRouter(tags=["jobs"])
    _add_submission_routes(jobs, node)
    _add_list_route(jobs, node)
    _add_job_routes(jobs, node)
    _add_stop_routes(jobs, node)
    _add_execution_routes(jobs, node)
    add_history_routes(jobs, node)
    return jobs


def orchestrator_routes(node: Node, jobs: APIRouter) -> APIRouter:
    """All of them; `jobs` are those of `job_routes`."""
    routes = APIRouter()
    routes.include_router(jobs)
    routes.include_router(log_routes(node), tags=["jobs"])
    routes.include_router(result_archive_routes(node), tags=["jobs"])
    routes.include_router(node_routes(node), tags=["nodes"])
    return routes


def _add_submission_routes(routes: APIRouter, node: Node) -> None:
    @routes.put("/jobs", response_model=Submitted, openapi_extra=takes(Submission))
    @direct
    async def submit_job(request: Request, idempotency_token: str = "") -> Response:
        """Submit a job. It is on disk when this responds, and the same token returns the same job."""
        asked = await submission(request)
        token = asked.token or idempotency_token or None
        job_id = await node.requester.submit(asked.spec, token=token, left_out=asked.left_out)
        return json_response({"JobID": job_id, **_evaluation(), "Warnings": None})

    @routes.put("/jobs/diff", response_model=Difference, openapi_extra=takes(Submission))
    async def compare_job(request: Request) -> Response:
        """What a job would change in the latest job of the same name, as lines that begin with + and -."""
        spec = (await submission(request)).spec
        latest = node.requester.latest_named(spec.name) if spec.name else None
        if latest is None:
            raise UnknownJob(f"no job has the name {spec.name!r}: nothing to compare with")
        diff = await trio.to_thread.run_sync(compared, latest.spec, spec)
        return json_response({"Diff": diff, "Warnings": None})

    @routes.put("/jobs/{job_id}/rerun", response_model=RerunSubmitted, openapi_extra=takes(Rerun))
    async def rerun_job(job_id: str, request: Request) -> Response:
        """Submit a job once more. It becomes a job of its own."""
        await json_object(request, most=MAX_SMALL_BODY)
        again = await node.requester.submit(_job(node, job_id).spec)
        return json_response({"JobID": again, "JobVersion": FIRST_VERSION, **_evaluation(), "Warnings": None})


def _add_list_route(routes: APIRouter, node: Node) -> None:
    @routes.get("/jobs", response_model=JobPage)
    async def list_jobs(
        limit: Limit = DEFAULT_PAGE,
        next_token: str = "",
        order_by: Annotated[str, one_of(*ORDERS)] = "created_at",
        reverse: bool = False,
        labels: Labels = None,
        namespace: str = "*",
        state: JobState | None = None,
        id_prefix: str = "",
        include: str = "",
    ) -> Response:
        """List jobs page by page, the oldest first, or with `reverse` the newest."""
        matches = label_filter(labels)

        def wanted(its_labels: Mapping[str, str], its_namespace: str) -> bool:
            return namespace in ("*", its_namespace) and matches(its_labels)

        query = JobQuery(
            order=order_by,
            newest_first=reverse,
            prefix=id_prefix,
            state=state,
            labelled=wanted if labels or namespace != "*" else None,
        )
        executions = "executions" in include.split(",")
        items, following = await _listed(
            node, query, limit or DEFAULT_PAGE, next_token, executions=executions
        )
        return json_response({"Items": items, "NextToken": following})


def _add_job_routes(routes: APIRouter, node: Node) -> None:
    @routes.get("/jobs/{job_id}", response_model=JobAnswer)
    @direct
    async def get_job(
        job_id: str,
        wait: Annotated[float, Query(ge=0)] = 0,
        include: str = "",
        limit: Limit = 0,
        job_version: int = 0,
    ) -> Response:
        """A job by its id, its name, or an unambiguous prefix of its id.

        With `wait` the response comes when the job has ended, or after that many seconds.
        """
        known = node.requester.resolve(job_id)
        _require_version(known, job_version)
        if wait > 0:
            job = await node.requester.wait(known, min(wait, MAX_WAIT))
        else:
            job = node.requester.job(known)
        answer: JSON = {"Job": job_to_json(job)}
        if "executions" in include.split(","):
            answer["Executions"] = await _executions(node, job.id, _spec_of(job))
        if "history" in include.split(","):
            answer["History"] = await history(node, known, HistoryQuery())
        return json_response(answer)

    @routes.get("/jobs/{job_id}/versions", response_model=JobPage)
    async def get_versions(job_id: str) -> Response:
        """The versions of a job. There is one: what changes a job becomes a job of its own."""
        return json_response({"Items": [job_to_json(_job(node, job_id))], "NextToken": ""})


def _add_stop_routes(routes: APIRouter, node: Node) -> None:
    @routes.delete("/jobs/{job_id}", response_model=Evaluation, openapi_extra=takes(Stop))
    async def stop_job(job_id: str, request: Request, reason: str = "") -> Response:
        """Stop a job. The reason is kept with it, whether it stands in the body or in the query."""
        kept = await stop_reason(request, reason)
        job = _job(node, job_id)
        if job.state.terminal:
            raise JobEnded(f"job {job.id} cannot be stopped: it is {job.state.lower()}")
        await node.requester.cancel(job.id, kept)
        return json_response(_evaluation())


def _add_execution_routes(routes: APIRouter, node: Node) -> None:
    @routes.get("/jobs/{job_id}/executions", response_model=ExecutionPage)
    async def get_executions(
        job_id: str,
        limit: Limit = 0,
        next_token: Annotated[int, Query(ge=0, le=2**31)] = 0,
        order_by: Annotated[str, one_of("", *_EXECUTION_ORDERS)] = "",
        reverse: bool = False,
        job_version: int = 0,
    ) -> Response:
        """The attempts at a job: first those whose bids were accepted, or in the order that is asked for."""
        job = _job(node, job_id)
        _require_version(job.id, job_version)
        page = partial(_page, order=order_by, reverse=reverse, start=next_token, limit=limit)
        return json_response(await _executions(node, job.id, _spec_of(job), page))

    @routes.get("/jobs/{job_id}/results", response_model=ResultPage)
    async def get_results(job_id: str, request: Request) -> Response:
        """Where the results of a job are: a URL of this node that ends in `.tar.gz`, and the CID."""
        known = node.requester.resolve(job_id)
        host, key = request.headers.get("host", ""), signing_key(node)
        items = archive_urls(host, known, await node.requester.results(known), key)
        return json_response({"Items": items, "NextToken": ""})


async def _listed(
    node: Node, query: JobQuery, limit: int, after: str, *, executions: bool
) -> tuple[list[JSON], str]:
    """The first jobs that match, from `after`. Lets others work meanwhile. Raises ApiError (400)."""
    items, scanned = list[JSON](), 0
    while True:
        try:
            found, after = await _some(node, query, limit - len(items), after, executions=executions)
        except ValueError as error:
            raise ApiError(str(error), status=400) from None
        items += found
        scanned += SCAN
        if not after or len(items) >= limit or (query.labelled and scanned >= MAX_SCANNED):
            return items, after
        await trio.lowlevel.checkpoint()


async def _some(
    node: Node, query: JobQuery, limit: int, after: str, *, executions: bool
) -> tuple[list[JSON], str]:
    """Some of them. Raises ValueError."""
    limit = min(limit, MAX_RECORDS)
    try:
        page = node.requester.job_records(query, limit=limit, after=after)
        records, following = page.jobs, page.next_token
        items = [job_record_to_json(job) for job in records]
    except _UNREADABLE:  # `jobs` sets aside a record that cannot be read
        jobs = node.requester.jobs(query, limit=limit, after=after)
        records = [job.model_dump(mode="json", by_alias=True) for job in jobs.jobs]
        following = jobs.next_token
        items = [job_record_to_json(job) for job in records]
    if executions:
        for job, item in zip(records, items, strict=True):
            item["Executions"] = await _executions(node, job["ID"], job["Spec"])
    return items, following


def _ordered(executions: list[JSON], order: str, *, reverse: bool) -> list[JSON]:
    """Without an order those whose bids were accepted come first: many a client reads only the first. Raises
    ApiError (400)."""
    if order == "created_at":
        found = executions
    elif not order:
        found = sorted(executions, key=lambda execution: execution["Slot"] is None)
    elif order == "modified_at":
        found = sorted(executions, key=lambda execution: execution["Modified"])
    elif order in ("id", "state"):
        name = {"id": "ID", "state": "State"}[order]
        found = sorted(executions, key=lambda execution: (execution[name], execution["ID"]))
    else:
        raise ApiError(f"unknown order_by {order!r}; use created_at, modified_at, id or state", status=400)
    return found[::-1] if reverse else found


def _page(
    executions: list[JSON], order: str = "", *, reverse: bool = False, start: int = 0, limit: int = 0
) -> tuple[list[JSON], str]:
    """Those on a page, and its next token. Raises ApiError (400)."""
    found = _ordered(executions, order, reverse=reverse)
    end = start + (limit or len(found))
    return found[start:end], str(end) if end < len(found) else ""


async def _executions(
    node: Node,
    job_id: JobID,
    spec: JSON,
    page: Callable[[list[JSON]], tuple[list[JSON], str]] = _page,
) -> JSON:
    """Those of a job with this spec. Lets others work meanwhile."""
    try:
        return await _shown(*page(await node.requester.execution_records(job_id)), spec)
    except _UNREADABLE:
        await node.requester.executions(job_id)  # sets aside a record that cannot be read
        return await _shown(*page(await node.requester.execution_records(job_id)), spec)


async def _shown(executions: Sequence[JSON], next_token: str, spec: JSON) -> JSON:
    items: list[JSON] = []
    for start in range(0, len(executions), EXECUTIONS_AT_ONCE):
        if items:
            await trio.lowlevel.checkpoint()
        items += executions_to_json(executions[start : start + EXECUTIONS_AT_ONCE], spec)
    return {"Items": items, "NextToken": next_token}


def _spec_of(job: Job) -> JSON:
    return job.spec.model_dump(mode="json", by_alias=True)


def _job(node: Node, wanted: str) -> Job:
    """Raises UnknownJob, AmbiguousID."""
    return node.requester.job(node.requester.resolve(wanted))


def _require_version(job_id: JobID, version: int) -> None:
    """Raises UnknownJob unless this is the only version, or 0 for any."""
    if version not in (0, FIRST_VERSION):
        raise UnknownJob(f"job {job_id} has no version {version}; its only version is {FIRST_VERSION}")


def _evaluation() -> JSON:
    return {"EvaluationID": str(uuid.uuid4())}
