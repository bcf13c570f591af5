"""`/api/v1/orchestrator`: jobs and the nodes of the network."""

from __future__ import annotations

import json
import re
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json

from bacalhau_p2p.api.direct_routes import direct
from bacalhau_p2p.errors import ApiError, Fault, InvalidJob
from bacalhau_p2p.model.api_json import execution_to_json, job_to_json, node_to_json, result_to_json
from bacalhau_p2p.model.base import JobID, UnixSeconds
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.node import Node
from bacalhau_p2p.node.known_nodes import KnownNode

JSON = dict[str, Any]
"""FastAPI validates and copies such a response; the most frequent ones use `_json_response` instead."""

MAX_BODY = 1024 * 1024
"""Bytes of a request with a job; the requester itself allows less."""
MAX_WAIT = 300.0
"""Seconds that one request may wait for a job to end."""
DEFAULT_PAGE = 10
MAX_PAGE = 1000
"""Jobs on one page."""


def orchestrator_routes(node: Node) -> APIRouter:
    routes = APIRouter()
    _add_job_routes(routes, node)
    _add_execution_routes(routes, node)

    @routes.get("/nodes")
    async def list_nodes() -> JSON:
        now = node.clock()
        return {"Items": [_known_node(known, now) for known in node.nodes()], "NextToken": ""}

    return routes


def _add_job_routes(routes: APIRouter, node: Node) -> None:
    @routes.put("/jobs")
    @direct
    async def submit_job(request: Request) -> Response:
        spec, token = await _submission(request)
        job_id = await node.requester.submit(spec, token=token)
        return _json_response({"JobID": job_id, "EvaluationID": str(uuid.uuid4()), "Warnings": []})

    @routes.get("/jobs")
    async def list_jobs(
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
        next_token: str = "",
        reverse: bool = False,
        id_prefix: str = "",
        include: str = "",
    ) -> JSON:
        after = _number(next_token)
        page = node.requester.jobs(limit=limit, after=after, newest_first=reverse, prefix=id_prefix)
        items = [job_to_json(job) for job in page.jobs]
        if "executions" in include.split(","):
            items = [{**item, "Executions": _executions(node, item["ID"])} for item in items]
        return {"Items": items, "NextToken": "" if page.next_token is None else str(page.next_token)}

    @routes.get("/jobs/{job_id}")
    @direct
    async def get_job(
        job_id: str, wait: Annotated[float, Query(ge=0)] = 0, include: str = "", limit: int = 0
    ) -> Response:
        known = node.requester.resolve(job_id)
        if wait > 0:
            job = await node.requester.wait(known, min(wait, MAX_WAIT))
        else:
            job = node.requester.job(known)
        answer: JSON = {"Job": job_to_json(job)}
        if "executions" in include.split(","):
            answer["Executions"] = _executions(node, known)
        return _json_response(answer)

    @routes.delete("/jobs/{job_id}")
    async def cancel_job(job_id: str, reason: str = "") -> JSON:
        await node.requester.cancel(node.requester.resolve(job_id), reason[:1000])
        return {"EvaluationID": str(uuid.uuid4())}


def _add_execution_routes(routes: APIRouter, node: Node) -> None:
    @routes.get("/jobs/{job_id}/executions")
    async def get_executions(job_id: str) -> JSON:
        return _executions(node, node.requester.resolve(job_id))

    @routes.get("/jobs/{job_id}/results")
    async def get_results(job_id: str) -> JSON:
        results = node.requester.results(node.requester.resolve(job_id))
        return {"Items": [result_to_json(result) for result in results], "NextToken": ""}


def _known_node(known: KnownNode, now: UnixSeconds) -> JSON:
    # `Connection` is Bacalhau's word; here it says whether the node's last announcement is fresh.
    connection = "CONNECTED" if known.is_fresh(now) else "DISCONNECTED"
    return {**node_to_json(known.info_at(now)), "Connection": connection}


def _executions(node: Node, job_id: JobID) -> JSON:
    items = [execution_to_json(execution) for execution in node.requester.executions(job_id)]
    return {"Items": items, "NextToken": ""}


def _json_response(value: JSON) -> Response:
    return Response(to_json(value), media_type="application/json")


def _number(next_token: str) -> int | None:
    if next_token and not re.fullmatch("[0-9]{1,18}", next_token):
        raise ApiError(f"invalid next_token {next_token!r}", status=400)
    return int(next_token) if next_token else None


async def _submission(request: Request) -> tuple[JobSpec, str | None]:
    """The job in the body and its idempotency token, if any. Raises InvalidJob, ApiError."""
    body = await _json_body(request)
    token = next((v for k, v in body.items() if k.lower() == "idempotencytoken"), None)
    if token is not None and (not isinstance(token, str) or not 0 < len(token) <= 256):
        raise InvalidJob([Fault("IdempotencyToken", "must be text of 1 to 256 characters")])
    job = next((v for k, v in body.items() if k.lower() == "job"), None)
    return job_from_mapping(body if job is None else job), token


async def _json_body(request: Request) -> JSON:
    """The JSON object in the body. Raises InvalidJob, and ApiError when the body is too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ApiError(f"request body too large: more than {MAX_BODY} bytes", status=413)
    try:
        value = json.loads(body)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # it could be neither stored nor sent
        raise InvalidJob([Fault("", "text with a lone half of a surrogate pair")]) from error
    except (ValueError, RecursionError) as error:
        raise InvalidJob([Fault("", f"request body is not JSON: {error}")]) from error
    if not isinstance(value, dict):
        raise InvalidJob([Fault("", "request body must be a JSON object with a Job")])
    return value
