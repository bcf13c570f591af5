"""`/api/v1/events`: what happens to all jobs of this requester, page by page and as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from pydantic_core import to_json

from bacalhau_p2p.api.bodies.jobs import FeedPageBody
from bacalhau_p2p.api.documented import answers
from bacalhau_p2p.api.history import KEEP_ALIVE, MAX_PAGE, MAX_WAIT, number_of
from bacalhau_p2p.api.json_bodies import json_response
from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.model.api_json import event_to_json
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.label_filter import label_filter
from bacalhau_p2p.node import Node
from bacalhau_p2p.requester.feed import FeedQuery

STREAM_PAGE = 100
"""Events that a stream holds at most: some 130 kB."""
MAX_FEED_READERS = 64
"""Requests that wait for events of all jobs, or stream them, at the same time."""
MAX_NAMED = 100
"""Jobs that one request may name."""
MAX_PLACE = 2**62


class FeedParameters(BaseModel):
    """Which events are wanted."""

    after: Annotated[int | None, Query(ge=0, le=MAX_PLACE)] = None
    since: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0
    """UNIX seconds."""
    wait: Annotated[float, Query(ge=0)] = 0
    limit: Annotated[int, Query(ge=0, le=MAX_PAGE)] = 0
    job: Annotated[list[str], Query(max_length=MAX_NAMED)] = []
    labels: list[str] = []
    kind: list[EventKind] = []

    def query(self, node: Node) -> FeedQuery:
        """Raises UnknownJob, AmbiguousID, and ApiError for a malformed selector."""
        return FeedQuery(
            jobs={node.requester.resolve(job) for job in self.job},
            kinds=set(self.kind),
            since=self.since,
            labelled=label_filter(self.labels) if self.labels else None,
        )

    def start(self, node: Node, last_event_id: str) -> int:
        """The place behind which to begin. Raises ApiError."""
        if last_event_id:
            return number_of(last_event_id, "Last-Event-ID")
        return node.requester.feed_place(self.since or None) if self.after is None else self.after


def event_routes(node: Node) -> APIRouter:
    routes = APIRouter()
    readers = _Readers()

    @routes.get("/events", response_model=FeedPageBody, responses=answers("text/event-stream"))
    async def get_all_events(request: Request, wanted: Annotated[FeedParameters, Query()]) -> Response:
        """What happens to all jobs: page by page, or as server-sent events.

        It begins behind the event `after`, with the time `since`, or else now.
        """
        query = wanted.query(node)
        after = wanted.start(node, request.headers.get("last-event-id", ""))
        readers.check()
        if "text/event-stream" in request.headers.get("accept", ""):
            return StreamingResponse(
                _server_sent(node, query, after, readers),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store"},
            )
        with readers.one_more():
            page = await node.requester.feed(
                query, after=after, limit=wanted.limit or MAX_PAGE, timeout=min(wanted.wait, MAX_WAIT)
            )
        return json_response({"Items": [event_to_json(e) for e in page.events], "NextToken": str(page.last)})

    return routes


class _Readers:
    """Counts those who read the events of all jobs."""

    def __init__(self) -> None:
        self._count = 0

    def check(self) -> None:
        """Raises ApiError when there are too many."""
        if self._count >= MAX_FEED_READERS:
            raise ApiError(f"{MAX_FEED_READERS} clients follow the events; try again later", status=503)

    @contextmanager
    def one_more(self) -> Iterator[None]:
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


async def _server_sent(node: Node, query: FeedQuery, after: int, readers: _Readers) -> AsyncIterator[bytes]:
    """Without an end. Nothing is read before the reader has taken what came before."""
    with readers.one_more():
        yield b"id: %d\n\n" % after  # the response begins at once, and a reader who is cut off resumes here
        while True:
            page = await node.requester.feed(query, after=after, limit=STREAM_PAGE, timeout=KEEP_ALIVE)
            for event in page.events:
                yield b"id: %d\ndata: %b\n\n" % (event.place, to_json(event_to_json(event)))
            if page.last != after or not page.events:
                yield b"id: %d\n\n" % page.last
            after = page.last
