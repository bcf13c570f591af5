"""Every error as an HTTP response: a status, and the body of `error_to_json`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from bacalhau_p2p.errors import ApiError, BacalhauError
from bacalhau_p2p.model.api_errors import error_to_json, headers_of, status_of
from bacalhau_p2p.model.validation import problem_of
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.text import printable

log = get_logger(__name__)


def error_response(error: BacalhauError) -> Response:
    """The response for an error.

    Errors quote what they were given, so their text is made printable: it may not even be encodable.
    """
    body, headers = _printable(error_to_json(error)), headers_of(error)
    return JSONResponse(body, status_code=status_of(error), headers=headers)


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, keep_lines=True)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return (
        {_printable(key): _printable(item) for key, item in value.items()}
        if isinstance(value, dict)
        else value
    )


def add_error_handlers(app: FastAPI) -> None:
    """Give errors of the framework the same body as ours."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def response_to(request: Request, error: Exception) -> Response:
    """What `add_error_handlers` answers."""
    handler = next(handler for kind, handler in _HANDLERS.items() if isinstance(error, kind))
    return await handler(request, error)


async def _bacalhau_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BacalhauError)
    return error_response(error)


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = next(part for part in reversed(first["loc"]) if isinstance(part, str))
    return error_response(ApiError(f"parameter {name}: {problem_of(first)}", status=422))


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, methods = request.url.path, ""
    message = f"{error.detail}: {request.method} {path}"
    if error.status_code == 404:
        message = f"there is nothing at {path}; /api/v1/docs lists what the API has"
    elif error.status_code == 405:
        methods = ", ".join(_methods_of(request))
        message = f"{path} does not take {request.method}; use {methods}"
    response = error_response(ApiError(message, status=error.status_code))
    response.headers.update(error.headers or {})
    if methods:
        response.headers["Allow"] = methods
    return response


def _methods_of(request: Request) -> list[str]:
    """The methods that a path has: the framework names only those of its first route."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _client_disconnected(request: Request, error: Exception) -> Response:
    """Nobody gets this response. Not logged, because any client can disconnect as often as it likes."""
    return error_response(ApiError("the client disconnected before the end of the request body", status=400))


async def _internal_error(request: Request, error: Exception) -> Response:
    log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return error_response(ApiError("internal error; the node's log has the details", status=500))


_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    BacalhauError: _bacalhau_error,
    RequestValidationError: _invalid_request,
    HTTPException: _http_exception,
    ClientDisconnect: _client_disconnected,
    Exception: _internal_error,
}
"""From the special to the general."""
