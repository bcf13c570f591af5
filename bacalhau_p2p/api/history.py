"""The history of a job: as Bacalhau's clients read it, page by page, and as server-sent events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from pydantic_core import to_json

from bacalhau_p2p.api.bodies.jobs import JobHistoryPage
from bacalhau_p2p.api.documented import answers
from bacalhau_p2p.api.json_bodies import JSON, json_response
from bacalhau_p2p.errors import ApiError, UnknownJob
from bacalhau_p2p.model.api_json import event_to_json
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.history import HistoryEvent, HistoryPage
from bacalhau_p2p.node import Node

MAX_WAIT = 300.0
"""Seconds that one request may wait for an event."""
DEFAULT_PAGE = 100
MAX_PAGE = 1_000
"""Events on one page."""
KEEP_ALIVE = 15.0
"""Seconds without an event after which a stream sends a comment, so that nobody takes it for broken."""


class HistoryQuery(BaseModel):
    """What Bacalhau's clients ask for. Empty texts mean everything."""

    event_type: Literal["", "all", "job", "execution"] = ""
    limit: Annotated[int, Query(ge=0, le=MAX_PAGE)] = 0
    next_token: str = ""
    execution_id: str = ""
    node_id: str = ""
    since: str = ""
    """UNIX seconds."""

    def admits(self, event: HistoryEvent) -> bool:
        level = "execution" if event.execution_id else "job"
        return (
            self.event_type in ("", "all", level)
            and event.execution_id.startswith(self.execution_id)
            and self.node_id in ("", event.node_id)
            and event.time >= number_of(self.since, "since")
        )


def add_history_routes(routes: APIRouter, node: Node) -> None:
    @routes.get("/jobs/{job_id}/history", response_model=JobHistoryPage)
    async def get_history(job_id: str, query: Annotated[HistoryQuery, Query()]) -> Response:
        """What happened to a job, in order."""
        return json_response(await history(node, node.requester.resolve(job_id), query))

    streamed = {**answers("text/event-stream"), 204: {"description": "The job has ended, and none follows."}}

    @routes.get("/jobs/{job_id}/events", response_model=JobHistoryPage, responses=streamed)
    async def get_events(
        request: Request,
        job_id: str,
        after: Annotated[int, Query(ge=0)] = 0,
        wait: Annotated[float, Query(ge=0)] = 0,
    ) -> Response:
        """What happened to a job and happens to it: page by page, or as server-sent events."""
        known = node.requester.resolve(job_id)
        if "text/event-stream" in request.headers.get("accept", ""):
            last = number_of(request.headers.get("last-event-id", ""), "Last-Event-ID")
            return await _stream(node, known, max(after, last))
        page = await node.requester.history(known, after=after, timeout=min(wait, MAX_WAIT))
        return json_response(_page_to_json(page, after))


async def history(node: Node, job_id: JobID, query: HistoryQuery) -> JSON:
    """Events that a query admits. The token is empty when the job has ended and none follows."""
    after, limit = number_of(query.next_token, "next_token"), query.limit or DEFAULT_PAGE
    found: list[HistoryEvent] = []
    while True:
        page = await node.requester.history(job_id, after=after)
        for event in page.events:
            if query.admits(event):
                if len(found) == limit:
                    return _page_to_json(HistoryPage(found, ended=False), after)
                found.append(event)
            after = event.number
        if page.ended or not page.events:
            return _page_to_json(HistoryPage(found, page.ended), after)


def number_of(text: str, name: str) -> int:
    """A whole number that is given as text, 0 for none. Raises ApiError."""
    if text and not re.fullmatch("[0-9]{1,18}", text):
        raise ApiError(f"invalid {name} {text!r}", status=400)
    return int(text or 0)


def _page_to_json(page: HistoryPage, after: int) -> JSON:
    last = page.events[-1].number if page.events else after
    return {"Items": [event_to_json(e) for e in page.events], "NextToken": "" if page.ended else str(last)}


async def _stream(node: Node, job_id: JobID, after: int) -> Response:
    page = await node.requester.history(job_id, after=after, limit=1)
    if page.ended and not page.events:  # a browser connects again until it is told this
        return Response(status_code=204)
    return StreamingResponse(
        _server_sent(node, job_id, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


async def _server_sent(node: Node, job_id: JobID, after: int) -> AsyncIterator[bytes]:
    """Until the job has ended, or was deleted."""
    yield b":\n\n"  # the response begins at once
    while True:
        try:
            page = await node.requester.history(job_id, after=after, timeout=KEEP_ALIVE)
        except UnknownJob:
            return
        for event in page.events:
            after = event.number
            yield b"id: %d\ndata: %b\n\n" % (after, to_json(event_to_json(event)))
        if page.ended:
            return
        if not page.events:
            yield b":\n\n"
