"""`/api/v1/docs`: the OpenAPI document for people, shown by Swagger UI, of which the node has a copy."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.page.site import HEADERS, POLICY

PATH = "/api/v1/docs"

_FOLDER = Path(__file__).parent / "swagger_ui"
_TYPES = {
    "start.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "LICENSE-swagger-ui.txt": "text/plain",
    "swagger-ui-bundle.js.LICENSE.txt": "text/plain",
}
_PAGE_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": POLICY.replace("img-src 'self'", "img-src 'self' data:"),
}
"""The icons of Swagger UI are in its style sheet."""
_FILE_HEADERS = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}


def docs_routes() -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get(PATH)
    async def show() -> FileResponse:
        return FileResponse(_FOLDER / "index.html", media_type="text/html", headers=_PAGE_HEADERS)

    @routes.get(PATH + "/{name}")
    async def file(name: str) -> FileResponse:
        """Read when it is asked for: the copy is too large to be held in memory."""
        if name not in _TYPES:
            raise ApiError("no such file", status=404)
        return FileResponse(_FOLDER / name, media_type=_TYPES[name], headers=_FILE_HEADERS)

    return routes
