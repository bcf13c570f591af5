"""Content in and out: CARs up, and a read-only trustless gateway down (`/ipfs/CID?format=car|raw|tar`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from bacalhau_p2p.content.cid import CID
from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.node import Node

JSON = dict[str, Any]

_MEDIA_TYPES = {
    "car": "application/vnd.ipld.car",
    "raw": "application/vnd.ipld.raw",
    "tar": "application/x-tar",
}


def content_routes(node: Node) -> APIRouter:
    routes = APIRouter()

    @routes.put("/api/v1/content")
    async def add_content(request: Request) -> JSON:
        """Keep the one DAG of a CAR; it is on disk, verified, when this answers."""
        cid = await node.content.import_car(request.stream(), pin_owner="user")
        return {"CID": str(cid)}

    @routes.get("/ipfs/{cid}")
    async def get_content(
        cid: str,
        request: Request,
        format: str = "",  # noqa: A002 - the name in the gateway specification
        provider: Annotated[list[str] | None, Query()] = None,
    ) -> Response:
        """The whole DAG of a CID, fetched from peers if need be before the first byte is sent."""
        wanted = format or _format_of(request.headers.get("accept", ""))
        if wanted not in _MEDIA_TYPES:
            raise ApiError("ask for format=car, raw or tar", status=406)
        parsed = CID.parse(cid)
        hints = node.learn(provider or [])
        await node.content.fetch(parsed, hints=hints, timeout=node.settings.content_timeout)
        headers = {"Etag": f'"{parsed}.{wanted}"', "X-Content-Type-Options": "nosniff"}
        media_type = _MEDIA_TYPES[wanted]
        if wanted == "raw":
            return Response(await node.content.block(parsed), media_type=media_type, headers=headers)
        headers["Content-Disposition"] = f'attachment; filename="{parsed}.{wanted}"'
        stream: AsyncIterator[bytes] = (
            node.content.car(parsed) if wanted == "car" else node.content.tar(parsed)
        )
        return StreamingResponse(stream, media_type=media_type, headers=headers)

    return routes


def _format_of(accept: str) -> str:
    return next((name for name, media_type in _MEDIA_TYPES.items() if media_type in accept), "")
