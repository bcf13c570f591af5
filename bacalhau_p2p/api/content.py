"""`/api/v1/content`: add content to the node, and pin what it keeps."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import trio
from fastapi import APIRouter, Query, Request, Response

from bacalhau_p2p.api.bodies.content import Added, Nothing, PinBody, PinLine, PinPage, Removed
from bacalhau_p2p.api.openapi import lines_of
from bacalhau_p2p.api.progress_lines import ProgressLines
from bacalhau_p2p.errors import ApiError, ContentNotFound, InvalidContent
from bacalhau_p2p.ipfs.files.reader import split_path
from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.ipfs.store.block_store import Pin
from bacalhau_p2p.model.quantities import parse_duration
from bacalhau_p2p.node import Node

JSON = dict[str, Any]

_CAR = {
    "requestBody": {
        "required": True,
        "content": {CAR_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


def content_routes(node: Node) -> APIRouter:
    routes = APIRouter()

    @routes.put("", response_model=Added, openapi_extra=_CAR)
    async def add_content(request: Request, root: Literal["first", "last"] = "first") -> JSON:
        """Store and pin the DAG of a CAR. It is verified and on disk when this responds."""
        cid = await node.content.import_car(
            request.stream(), pin_owner=pin_owners.USER, root_is_last=root == "last"
        )
        return {"CID": str(cid)}

    @routes.get("", response_model=PinPage)
    async def list_content() -> JSON:
        """List the pins with their owners, expiry and size, and how much of the quota is used."""
        now = node.clock()
        pins = [pin for pin in await node.content.pins() if pin.expires is None or pin.expires > now]
        items = [{**_pin_json(pin), "Size": await _size(node, pin.cid)} for pin in pins]
        return {"Items": items, "Used": node.content.used, "Quota": node.content.quota}

    @routes.post("/gc", response_model=Removed)
    async def collect_garbage() -> JSON:
        """Remove every block that is neither pinned nor in use."""
        removed = await node.content.collect()
        return {"Blocks": removed.blocks, "Bytes": removed.bytes, "Used": node.content.used}

    _add_pin_routes(routes, node)
    return routes


def _add_pin_routes(routes: APIRouter, node: Node) -> None:
    @routes.put("/pins/{cid:path}", response_model=PinBody, responses=lines_of(PinLine))
    async def pin_content(
        cid: str,
        keep: str = "",
        provider: Annotated[list[str] | None, Query()] = None,
        progress: bool = False,
    ) -> JSON | Response:
        """Pin a CID, or what is at a path below one, for a time such as `7d` or until it is unpinned. Fetches
        it from peers if needed. With `progress` the response is lines of JSON: how much is fetched, now and
        then, and at last the pin or the error."""
        (root, names), expires = split_path(cid), None
        if keep:
            try:
                expires = node.clock() + parse_duration(keep)
            except ValueError as error:
                raise ApiError(f"invalid keep: {error}", status=400) from None
        hints = node.learn(provider or [])
        timeout = node.settings.content_timeout

        async def pin() -> JSON:
            found = root
            if names:
                found = await node.content.locate(root, names, hints=hints, timeout=timeout)
            await node.content.fetch(
                found, hints=hints, pin_owner=pin_owners.USER, expires=expires, timeout=timeout
            )
            return _pin_json(Pin(found.v1, pin_owners.USER, expires))

        async def size() -> int | None:
            with trio.move_on_after(timeout):
                return None if names else await node.content.claimed_size(root, hints=hints)
            return None

        return ProgressLines(pin, size) if progress else await pin()

    @routes.delete("/pins/{cid}", response_model=Nothing)
    async def unpin_content(cid: str, owner: str = pin_owners.USER) -> JSON:
        """Remove a pin of a user. Its blocks stay until the node needs the space."""
        root = CID.parse(cid)
        if not await node.unpin(root, owner):
            raise ContentNotFound(f"{root} is not pinned by {owner}")
        return {}


def _pin_json(pin: Pin) -> JSON:
    expires = None if pin.expires is None else int(pin.expires * 1_000_000_000)
    return {"CID": str(pin.cid), "Owner": pin.owner, "Expires": expires}


async def _size(node: Node, cid: CID) -> int | None:
    try:
        return await node.content.size(cid)
    except (ContentNotFound, InvalidContent):
        return None
