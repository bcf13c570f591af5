"""Direct routes answer as FastAPI does, and everything else is left to it."""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from bacalhau_p2p.api.direct_routes import DirectRoutes, direct
from bacalhau_p2p.api.error_responses import add_error_handlers
from bacalhau_p2p.errors import UnknownJob

PREFIX = "/api/jobs"


def router() -> APIRouter:
    routes = APIRouter()

    @routes.put("/things")
    @direct
    async def put(request: Request) -> Response:
        return JSONResponse({"body": (await request.body()).decode("latin-1")})

    @routes.get("/things/{thing}")
    @direct
    async def get(
        thing: str, wait: Annotated[float, Query(ge=0)] = 0, include: str = "", limit: int = 3
    ) -> Response:
        if thing == "unknown":
            raise UnknownJob("no such thing")
        if thing == "fault":
            raise KeyError(thing)
        return JSONResponse([thing, wait, include, limit])

    @routes.get("/things")
    async def list_things(first: int = 0) -> list[int]:
        return [first]

    return routes


def apps() -> tuple[FastAPI, DirectRoutes, DirectRoutes]:
    """FastAPI alone, with direct routes in front of it, and direct routes with nothing behind them."""
    routes = router()
    app = FastAPI()
    app.include_router(routes, prefix=PREFIX)
    add_error_handlers(app)

    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("nothing", status_code=418)(scope, receive, send)

    return app, DirectRoutes(app, {PREFIX: routes}), DirectRoutes(nothing, {PREFIX: routes})


async def responses(method: str, path: str, body: bytes = b"") -> list[tuple[int, str, bytes]]:
    found = []
    for app in apps():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            response = await http.request(method, PREFIX + path, content=body)
        found.append((response.status_code, response.headers.get("content-type", ""), response.content))
    return found


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/things/a", 200),
        ("/things/a?wait=2.5&include=x,y&limit=7", 200),
        ("/things/a?wait=1&wait=2&other=3", 200),
        ("/things/a%20b?include=%C3%A4+%26%00", 200),
        ("/things/a?include=%ff", 200),
        ("/things/a?include=", 200),
        ("/things/a?wait=&limit=3", 422),
        ("/things/a?wait=-1", 422),
        ("/things/a?wait=nan", 422),
        ("/things/a?limit=1.5&wait=x", 422),
        ("/things/a?limit=x", 422),
        ("/things/a?limit=" + "9" * 5000, 422),
        ("/things/unknown", 404),
        ("/things/fault", 500),
    ],
)
async def test_a_direct_route_answers_as_the_framework_does(path, status):
    framework, together, alone = await responses("GET", path)
    assert framework == together == alone
    assert framework[0] == status


async def test_a_direct_route_reads_the_body():
    framework, together, alone = await responses("PUT", "/things", b"body")
    assert framework == together == alone == (200, "application/json", b'{"body":"body"}')


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/things?first=4", 200),
        ("PUT", "/things/", 307),
        ("PUT", "/things/a", 405),
        ("HEAD", "/things/a", 405),
        ("GET", "/things/a/b", 404),
        ("GET", "/things/a%2Fb", 404),
        ("GET", "//things/a", 404),
        ("GET", "/other/a", 404),
    ],
)
async def test_everything_else_is_left_to_the_framework(method, path, status):
    framework, together, alone = await responses(method, path)
    assert framework == together
    assert framework[0] == status
    assert alone[0] == 418


def test_direct_routes_are_documented_like_others():
    documented = apps()[0].openapi()["paths"]
    assert {path: set(methods) for path, methods in documented.items()} == {
        PREFIX + "/things": {"put", "get"},
        PREFIX + "/things/{thing}": {"get"},
    }
    names = [parameter["name"] for parameter in documented[PREFIX + "/things/{thing}"]["get"]["parameters"]]
    assert names == ["thing", "wait", "include", "limit"]


def test_a_router_without_a_direct_route_of_its_own_is_a_mistake():
    including = APIRouter()
    including.include_router(router())
    with pytest.raises(ValueError, match="no route of the router at /api/jobs is direct"):
        DirectRoutes(FastAPI(), {PREFIX: including})
