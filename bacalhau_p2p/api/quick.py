"""What clients ask most often, answered in front of the framework, whose routing and validation take longer
than the answer. Only the plain form of each request is known here; any other is left to the routes.
"""

from __future__ import annotations

import re

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bacalhau_p2p.api.orchestrator import show_job, submit_job
from bacalhau_p2p.api.problems import describe
from bacalhau_p2p.errors import BacalhauError
from bacalhau_p2p.node import Node

_JOBS = "/api/v1/orchestrator/jobs"
_JOB = re.compile(_JOBS + "/([0-9A-Za-z-]+)")
_WAIT = re.compile(rb"wait=([0-9]{1,6}(?:\.[0-9]{1,6})?)")


class Quick:
    """Submitting a job, and waiting for one."""

    def __init__(self, app: ASGIApp, node: Node) -> None:
        self._app = app
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp | None = None
        if scope["type"] == "http":
            try:
                answer = await self._answer(scope, receive)
            except BacalhauError as error:
                answer = describe(error)
        await (answer or self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        if not self._node.settings.requester:
            return None
        method, path, query = scope["method"], scope["path"], scope["query_string"]
        if method == "PUT" and path == _JOBS and not query:
            return await submit_job(self._node, Request(scope, receive))
        if (
            method == "GET"
            and (wait := _WAIT.fullmatch(query)) is not None
            and (job := _JOB.fullmatch(path)) is not None
        ):
            return await show_job(self._node, job[1], float(wait[1]))
        return None
