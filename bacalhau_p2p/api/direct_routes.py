"""Routes that are called without FastAPI, which takes longer than the two requests of a job themselves.

They are FastAPI's routes too: it documents them, and their endpoints' signatures say what they accept. What
is not exactly one of them, in path and method, is left to FastAPI.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError, create_model
from starlette.types import ASGIApp, Receive, Scope, Send

from bacalhau_p2p.api.error_responses import response_to

Endpoint = Callable[..., Awaitable[Response]]
"""Takes a `Request` named `request`, a parameter of its path, and those of the query, as far as it names
them."""


_DIRECT = "__direct_route__"


class DirectRoutes:
    """Calls direct routes, and `app` for everything else."""

    def __init__(self, app: ASGIApp, routers: dict[str, APIRouter]) -> None:
        """Takes the direct routes of these routers, by their prefixes in the API, without routers that they
        include. Raises ValueError for a router that has none: its requests would all take the slow way."""
        self._app = app
        self._exact: dict[tuple[str, str], _DirectRoute] = {}
        self._by_folder: dict[tuple[str, str], _DirectRoute] = {}
        for prefix, router in routers.items():
            found = [route for route in router.routes if isinstance(route, APIRoute) and _is_direct(route)]
            if not found:
                raise ValueError(f"no route of the router at {prefix} is direct")
            for route in found:
                self._add(prefix + route.path, route)

    def _add(self, path: str, route: APIRoute) -> None:
        folder, _, last = path.rpartition("/")
        direct = _DirectRoute(route.endpoint, last.strip("{}") if last.startswith("{") else None)
        table, key = (self._exact, path) if direct.path_parameter is None else (self._by_folder, folder)
        for method in route.methods or ():
            table[method, key] = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            method, path = scope["method"], scope["path"]
            if (route := self._exact.get((method, path))) is not None:
                await route(scope, receive, send, "")
                return
            folder, _, last = path.rpartition("/")
            if last and (route := self._by_folder.get((method, folder))) is not None:
                await route(scope, receive, send, last)
                return
        await self._app(scope, receive, send)


def direct(endpoint: Endpoint) -> Endpoint:
    """Let this endpoint of a router be called by `DirectRoutes`."""
    setattr(endpoint, _DIRECT, True)
    return endpoint


def _is_direct(route: APIRoute) -> bool:
    return getattr(route.endpoint, _DIRECT, False)


class _DirectRoute:
    def __init__(self, endpoint: Endpoint, path_parameter: str | None) -> None:
        self.path_parameter = path_parameter
        self._endpoint = endpoint
        parameters = dict(inspect.signature(endpoint, eval_str=True).parameters)
        self._takes_request = parameters.pop("request", None) is not None
        if path_parameter is not None:
            del parameters[path_parameter]
        fields: dict[str, Any] = {
            name: (parameter.annotation, parameter.default) for name, parameter in parameters.items()
        }
        model = create_model("Query", **fields)
        self._names = tuple(fields)
        self._query = TypeAdapter(model)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, last: str) -> None:
        request = Request(scope, receive)
        try:
            arguments = self._arguments(scope["query_string"])
            if self.path_parameter is not None:
                arguments[self.path_parameter] = last
            if self._takes_request:
                arguments["request"] = request
            response = await self._endpoint(**arguments)
        except Exception as error:  # noqa: BLE001 - every fault is an answer, as in the framework
            response = await response_to(request, error)
        await response(scope, receive, send)

    def _arguments(self, query_string: bytes) -> dict[str, Any]:
        """Raises RequestValidationError."""
        given = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
        try:
            query = self._query.validate_python(given)
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False)) from error
        return {name: getattr(query, name) for name in self._names}
