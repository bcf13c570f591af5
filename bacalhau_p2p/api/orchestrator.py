"""`/api/v1/orchestrator`: jobs, and the nodes that may run them."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from bacalhau_p2p.errors import ApiError, Fault, InvalidJob
from bacalhau_p2p.model.api_json import execution_to_json, job_to_json, node_to_json, result_to_json
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.node import Node

JSON = dict[str, Any]
"""What FastAPI checks and converts once more; answers that are asked for most are a JSONResponse instead."""

MAX_BODY = 1024 * 1024
"""Bytes of a submitted job; the requester itself allows less."""
LONGEST_WAIT = 300.0
"""Seconds that one request may wait for a job to end."""
PAGE = 10
MOST_JOBS = 1000
"""Jobs of one page at most."""


def orchestrator_routes(node: Node) -> APIRouter:
    routes = APIRouter()

    @routes.put("/jobs")
    async def put_job(request: Request) -> Response:
        return await submit_job(node, request)

    @routes.get("/jobs")
    async def list_jobs(
        limit: Annotated[int, Query(ge=1, le=MOST_JOBS)] = PAGE,
        next_token: str = "",
        reverse: bool = False,
        id_prefix: str = "",
        include: str = "",
    ) -> JSON:
        if next_token and not next_token.isdecimal():
            raise ApiError(f"next_token {next_token!r} is not one of ours", status=400)
        page = node.requester.jobs(
            limit=limit, offset=int(next_token or 0), newest_first=reverse, prefix=id_prefix
        )
        items = [job_to_json(job) for job in page.jobs]
        if "executions" in include.split(","):
            items = [{**item, "Executions": _executions(node, item["ID"])} for item in items]
        return {
            "Items": items,
            "NextToken": "" if page.next_offset is None else str(page.next_offset),
        }

    @routes.get("/jobs/{job_id}")
    async def get_job(
        job_id: str, wait: Annotated[float, Query(ge=0)] = 0, include: str = "", limit: int = 0
    ) -> Response:
        return await show_job(node, job_id, wait, include)

    @routes.get("/jobs/{job_id}/executions")
    async def get_executions(job_id: str) -> JSON:
        return _executions(node, node.requester.resolve(job_id))

    @routes.get("/jobs/{job_id}/results")
    async def get_results(job_id: str) -> JSON:
        results = node.requester.results(node.requester.resolve(job_id))
        return {"Items": [result_to_json(result) for result in results], "NextToken": ""}

    @routes.delete("/jobs/{job_id}")
    async def cancel_job(job_id: str, reason: str = "") -> JSON:
        await node.requester.cancel(node.requester.resolve(job_id), reason[:1000])
        return {"EvaluationID": str(uuid.uuid4())}

    @routes.get("/nodes")
    async def list_nodes() -> JSON:
        now = node.clock()
        items = []
        for known in node.nodes():
            # Bacalhau's word: here it says whether the node's last announcement is fresh.
            connection = "CONNECTED" if known.is_fresh(now) else "DISCONNECTED"
            items.append({**node_to_json(known.info), "Connection": connection})
        return {"Items": items, "NextToken": ""}

    return routes


async def submit_job(node: Node, request: Request) -> Response:
    body = await _json_body(request)
    token = next((v for k, v in body.items() if k.lower() == "idempotencytoken"), None)
    if token is not None and (not isinstance(token, str) or not 0 < len(token) <= 256):
        raise InvalidJob([Fault("IdempotencyToken", "must be text of 1 to 256 characters")])
    job = next((v for k, v in body.items() if k.lower() == "job"), None)
    spec = job_from_mapping(body if job is None else job)
    job_id = await node.requester.submit(spec, token=token or None)
    return JSONResponse({"JobID": job_id, "EvaluationID": str(uuid.uuid4()), "Warnings": []})


async def show_job(node: Node, job_id: str, wait: float, include: str = "") -> Response:
    known = node.requester.resolve(job_id)
    if wait > 0:
        job = await node.requester.wait(known, min(wait, LONGEST_WAIT))
    else:
        job = node.requester.job(known)
    answer: JSON = {"Job": job_to_json(job)}
    if "executions" in include.split(","):
        answer["Executions"] = _executions(node, known)
    return JSONResponse(answer)


def _executions(node: Node, job_id: JobID) -> JSON:
    items = [execution_to_json(execution) for execution in node.requester.executions(job_id)]
    return {"Items": items, "NextToken": ""}


async def _json_body(request: Request) -> JSON:
    """The request's JSON map. Raises InvalidJob, and ApiError when it is too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ApiError(f"the request is longer than {MAX_BODY} bytes", status=413)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidJob([Fault("", f"the request is not JSON: {error}")]) from error
    if not isinstance(value, dict):
        raise InvalidJob([Fault("", "the request must be a map with a Job")])
    return value
