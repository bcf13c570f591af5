"""Who may use the API."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bacalhau_p2p.api import docs_page
from bacalhau_p2p.api.error_responses import error_response
from bacalhau_p2p.api.result_archives import signature_in, signature_of
from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.page import login
from bacalhau_p2p.runtime.token_guesses import TokenGuesses

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
_USUAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_OPEN = frozenset(
    {"/api/v1/agent/alive", "/api/v1/agent/version", "/api/v1/agent/authconfig", "/api/v1/auth", "/login"}
)
_OPEN_FOLDERS = ("/api/v1/auth/", "/static/")
"""What clients ask before they have a token, and browsers before their user has logged in."""
_OWN_PAGES = frozenset({"", "none", "same-origin"})
"""Values of `Sec-Fetch-Site` without a foreign page: no browser, its address bar, and the API itself."""


class AccessControl:
    """Passes on requests with the API token or, when there is no token, requests to this machine. This holds
    for every kind of request, WebSockets included.

    Requests of web pages are refused even when a browser on this machine sends them: they have a foreign
    `Sec-Fetch-Site` or `Origin`, or after DNS rebinding a foreign `Host`. With `gateway`, everybody may
    read content: such a request is marked as `public` and gets only what is stored on the node.
    """

    def __init__(
        self, app: ASGIApp, *, token: str, url_key: bytes, guesses: TokenGuesses, gateway: bool = False
    ) -> None:
        """`url_key` signs the URLs of results."""
        self._app = app
        self._url_key = url_key
        self._token = token
        self._session = login.session_of(token)
        self._guesses = guesses
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None and self._gateway and scope["path"].startswith("/ipfs/"):
            refusal = None if scope.get("method") in ("GET", "HEAD") else refusal
            scope.setdefault("state", {})["public"] = True
        handler = self._app if refusal is None else _response(refusal, scope)
        await handler(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if self._token and not is_open_path(scope["path"]):
            try:
                admitted = self._is_admitted(scope, headers)
            except ApiError as too_many_guesses:
                return too_many_guesses
            if not admitted:
                return ApiError("missing or wrong API token; set BACALHAU_P2P_API_TOKEN", status=401)
        if not self._token and not _is_local(host):
            return ApiError(
                f"host {host!r} is not allowed: without a token, use localhost or 127.0.0.1", status=403
            )
        if origin and _netloc(origin) != host:
            return ApiError(f"requests from web pages of {origin} are not allowed", status=403)
        if headers.get("sec-fetch-site", "").lower() not in _OWN_PAGES:
            return ApiError("requests from pages of other web sites are not allowed", status=403)
        return None

    def _is_admitted(self, scope: Scope, headers: Headers) -> bool:
        """Whether the request has the token or what was made with it: a cookie or a signature. Each could be
        a guess of the token. Raises ApiError when there were too many of these."""
        client, is_right = scope.get("client"), self._guesses.is_right
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and given and is_right(client, given, self._token, what="token"):
            return True
        session = login.session_in(headers.get("cookie", ""))
        if session and is_right(client, session, self._session, what="cookie"):
            return True
        signature, path = signature_in(scope), scope["path"]
        return bool(signature) and is_right(
            client, signature, signature_of(path, self._url_key), what=f"signature of {path}"
        )


def is_open_path(path: str) -> bool:
    """Whether clients ask for this before they have a token."""
    return path in _OPEN or path.startswith(_OPEN_FOLDERS)


def _response(refusal: ApiError, scope: Scope) -> Response:
    """The refusal; for a browser that wants a page, a way to the form to log in."""
    path = scope["path"]
    is_page = path == docs_page.PATH or not path.startswith("/api/")
    wants_page = scope["type"] == "http" and scope["method"] == "GET" and is_page
    if refusal.status == 401 and wants_page and "text/html" in Headers(scope=scope).get("accept", ""):
        query = scope.get("query_string", b"").decode("latin-1")
        target = path + (f"?{query}" if query else "")
        return RedirectResponse(f"/login?{urlencode({'next': target})}", status_code=303)
    return error_response(refusal)


def _is_local(host: str) -> bool:
    """Whether this is `localhost` or a loopback address; names that merely look like one are not."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1] or match[2]
    if name in _USUAL_HOSTS or name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # such as http://[
        return ""
