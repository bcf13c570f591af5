"""Parameters without a value count as not given: Bacalhau's clients send all of those that they know."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class IgnoreBlankParameters:
    """Leaves `name=` out of the query of a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query: bytes = scope.get("query_string", b"")
        if query.endswith(b"=") or b"=&" in query:
            scope = {**scope, "query_string": b"&".join(p for p in query.split(b"&") if p[-1:] != b"=")}
        await self._app(scope, receive, send)
