"""Who may use the API."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from bacalhau_p2p.api.error_responses import error_response
from bacalhau_p2p.errors import ApiError

_LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class AccessControl:
    """Passes on requests with the API token or, when there is no token, requests to this machine.

    Requests of web pages are refused even when a browser on this machine sends them: they have a
    foreign `Origin`, or after DNS rebinding a foreign `Host`. With `gateway`, everybody may read
    content: such a request is marked as `public` and gets only what is stored on the node.
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
        handler = self._app if refusal is None else error_response(refusal)
        await handler(scope, receive, send)

    def _refusal(self, headers: Headers) -> ApiError | None:
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if self._token:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), self._token):
                return ApiError("missing or wrong API token; set BACALHAU_P2P_API_TOKEN", status=401)
        elif not _is_local(host):
            return ApiError(f"host {host!r} is not allowed; without a token only local hosts are", status=403)
        if origin and urlsplit(origin).netloc != host:
            return ApiError(f"requests from web pages of {origin} are not allowed", status=403)
        return None


def _is_local(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    return name in _LOCAL_NAMES or name.startswith("127.")
