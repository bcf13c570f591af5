"""The HTTP API of a node, in the shape of Bacalhau's `/api/v1`. `docs/api.md` describes it."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

import bacalhau_p2p
from bacalhau_p2p.api.agent import agent_routes
from bacalhau_p2p.api.content import content_routes
from bacalhau_p2p.api.gateway import gateway_routes
from bacalhau_p2p.api.orchestrator import orchestrator_routes
from bacalhau_p2p.api.problems import describe
from bacalhau_p2p.errors import BacalhauError
from bacalhau_p2p.node import Node

_LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


def create_app(node: Node) -> ASGIApp:
    """The ASGI application of one node."""
    app = FastAPI(title="bacalhau_p2p", version=bacalhau_p2p.__version__, docs_url=None, redoc_url=None)
    app.include_router(orchestrator_routes(node), prefix="/api/v1/orchestrator")
    app.include_router(agent_routes(node), prefix="/api/v1/agent")
    app.include_router(content_routes(node))
    app.include_router(gateway_routes(node))
    app.add_exception_handler(BacalhauError, _describe)
    return Guard(app, token=node.settings.api_token, gateway=node.settings.gateway)


async def _describe(request: Request, error: Exception) -> Response:
    assert isinstance(error, BacalhauError)
    return describe(error)


class Guard:
    """Lets those ask who should: the bearer of the token, or with none a caller on this machine.

    A web page that a browser of this machine shows is not such a caller: its requests carry a foreign
    `Origin`, or after DNS rebinding a foreign `Host`. Where `gateway` is set, anybody else may read
    content: such a request is marked as `public`, and is served from what the node has.
    """

    def __init__(self, app: ASGIApp, *, token: str, gateway: bool = False) -> None:
        self._app = app
        self._token = token.encode()
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        if refusal is not None and self._gateway and scope["path"].startswith("/ipfs/"):
            refusal = None if scope["method"] in ("GET", "HEAD") else refusal
            scope.setdefault("state", {})["public"] = True
        if refusal is not None:
            status, message = refusal
            await JSONResponse({"Error": message, "Code": "ApiError"}, status)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if self._token:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), self._token):
                return 401, "this API needs a token: set BACALHAU_P2P_API_TOKEN"
        elif not _is_local(host):
            return 403, "this API answers only to its own address"
        if origin and urlsplit(origin).netloc != host:
            return 403, "this API does not answer web pages of others"
        return None


def _is_local(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    return name in _LOCAL_NAMES or name.startswith("127.")
