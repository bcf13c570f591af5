"""`/ipfs/CID[/path]`: a read-only gateway to content, for IPFS clients, browsers and `curl`.

Follows the HTTP gateway specifications of IPFS. A client can verify trustless responses (`format=raw`
and `car`) by their CIDs; a plain file or listing it has to trust.
"""

from __future__ import annotations

import html
import json
import mimetypes
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, cast
from urllib.parse import quote

import trio
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from bacalhau_p2p.api.documented import answers, one_of
from bacalhau_p2p.errors import ApiError, ContentError, InvalidContent
from bacalhau_p2p.ipfs.content.reader import DagScope
from bacalhau_p2p.ipfs.files.reader import ResolvedPath, split_path
from bacalhau_p2p.ipfs.format.car import (
    CAR_MEDIA_TYPE,
    CAR_MEDIA_TYPE_DEPTH_FIRST,
    RAW_MEDIA_TYPE,
    error_section,
)
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.unixfs import File, Symlink
from bacalhau_p2p.model.api_errors import error_to_json
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.node import Node
from bacalhau_p2p.runtime.tasks import background

_MEDIA_TYPES = {
    "car": CAR_MEDIA_TYPE,
    "raw": RAW_MEDIA_TYPE,
    "tar": "application/x-tar",
}
"""By the name of a format, in the order of preference when a client accepts several."""
MAX_LISTED = 10_000
"""Entries that the page of a folder has. Names may be long, and everybody may ask for it again and again."""
_SCOPES = ("all", "entity", "block")
_RANGE = re.compile(r"bytes=(\d{0,20})-(\d{0,20})", re.ASCII)
_CACHE_FOREVER = "public, max-age=29030400, immutable"
_PAGE = "<!DOCTYPE html><meta charset=utf-8><title>{title}</title><h1>{title}</h1><ul>{items}</ul>\n"
_ITEM = '<li><a href="{link}">{name}</a>'


def gateway_routes(node: Node) -> APIRouter:
    routes = APIRouter()

    bytes_of_any_type: dict[str, Any] = {
        "response_class": StreamingResponse,
        "responses": answers("*/*", 206, 304),
    }

    @routes.head("/ipfs/{path:path}", operation_id="head_content", **bytes_of_any_type)
    @routes.get("/ipfs/{path:path}", **bytes_of_any_type)
    async def get_content(
        path: str,
        request: Request,
        format: Annotated[str, one_of("", *_MEDIA_TYPES)] = "",  # noqa: A002 - the specification's name
        scope: Annotated[str, Query(alias="dag-scope", json_schema_extra={"enum": [*_SCOPES]})] = "all",
        provider: Annotated[list[str] | None, Query()] = None,
    ) -> Response:
        """The content at a path below a CID. Fetches everything below the CID from peers first if needed."""
        form = format or _format_of(request.headers.get("accept", ""))
        if form and form not in _MEDIA_TYPES:
            raise ApiError(f"unknown format {form!r}; use car, raw or tar, or leave it out", status=406)
        if scope not in _SCOPES:
            raise ApiError(f"unknown dag-scope {scope!r}; use all, entity or block", status=400)
        root, names = split_path(path)
        public = _is_public(request)
        hints = [] if public else node.learn(provider or [])
        whole = form == "car" and scope == "all" and not names and request.method == "GET"
        if whole and not public and not await node.content.has(root):
            return _FetchedCar(node, root, hints)
        with node.content.holding(root):
            if not public:
                await node.content.fetch(root, hints=hints, timeout=node.settings.content_timeout)
            place = await node.content.reader.resolve(root, names)
            responder = _Responder(node, request, place, names[-1] if names else str(root))
            responder.headers["X-Ipfs-Path"] = quote(f"/ipfs/{path}")
            responder.headers["X-Ipfs-Roots"] = ",".join(map(str, _roots(place)))
            if form:
                return await responder.formatted(form, cast(DagScope, scope))
            return await responder.plain()

    return routes


def _is_public(request: Request) -> bool:
    return bool(getattr(request.state, "public", False))


def _roots(place: ResolvedPath) -> list[object]:
    return [*place.ancestors[:1], place.cid] if place.ancestors else [place.cid]


def _format_of(accept: str) -> str:
    return next((name for name, media_type in _MEDIA_TYPES.items() if media_type in accept), "")


class _FetchedCar(Response):
    """A DAG as a CAR, sent while the node fetches it from peers.

    If the fetch fails after the first block, the stream ends with a section that says why
    (`car.error_section`), and the connection is closed before the end of the body.
    """

    def __init__(self, node: Node, root: CID, hints: Sequence[PeerID]) -> None:
        super().__init__(media_type=CAR_MEDIA_TYPE_DEPTH_FIRST, headers=_car_headers(root, "all", 0))
        del self.headers["Content-Length"]
        self.headers["X-Ipfs-Path"] = f"/ipfs/{root}"
        self.headers["X-Ipfs-Roots"] = str(root)
        self._open = partial(
            node.content.fetch_as_car, root, hints=hints, timeout=node.settings.content_timeout
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with background() as nursery:
            nursery.start_soon(_cancel_on_disconnect, receive, nursery.cancel_scope)
            await self._send(send)

    async def _send(self, send: Send) -> None:
        started = False
        async with self._open() as follower:
            try:
                while piece := await follower.receive():
                    if not started:
                        await self._start(send, follower.size)
                        started = True
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except ContentError as error:
                if not started:
                    raise
                text = json.dumps(error_to_json(error)).encode()
                await send({"type": "http.response.body", "body": error_section(text), "more_body": True})
                return  # without the end of the body
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send, size: int | None) -> None:
        if size is not None:
            self.headers["X-Content-Size"] = str(size)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


async def _cancel_on_disconnect(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _car_headers(cid: CID, scope: str, depth: int) -> dict[str, str]:
    return {
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": _CACHE_FOREVER,
        "Content-Disposition": f'attachment; filename="{cid}.car"',
        "Etag": _etag(cid, "car", scope, depth),
    }


def _etag(cid: CID, form: str, scope: str, depth: int) -> str:
    return f'"{cid}.{form}"' if form == "raw" else f'W/"{cid}.{form}.{scope}.{depth}"'


class _Responder:
    """Makes the HTTP response for one place in a DAG."""

    def __init__(self, node: Node, request: Request, place: ResolvedPath, name: str) -> None:
        self._content = node.content
        self._request = request
        self._place = place
        self._name = name
        self.headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": _CACHE_FOREVER}
        if _is_public(request):
            self.headers["Access-Control-Allow-Origin"] = "*"

    async def formatted(self, form: str, scope: DagScope) -> Response:
        cid = self._place.cid
        etag = _etag(cid, form, scope, len(self._place.ancestors))
        media_type = CAR_MEDIA_TYPE_DEPTH_FIRST if form == "car" else _MEDIA_TYPES[form]
        self.headers["Content-Disposition"] = f'attachment; filename="{cid}.{form}"'
        if not_modified := self._not_modified(etag):
            return not_modified
        if form == "raw":
            return Response(
                await self._content.reader.block(cid), media_type=media_type, headers=self.headers
            )
        if form == "tar":
            return await self._stream(self._content.reader.tar(cid), media_type)
        if scope == "all":
            self.headers["X-Content-Size"] = str(await self._content.size(cid))
        return await self._stream(self._content.reader.car_at(self._place, scope), media_type)

    async def plain(self) -> Response:
        # Content is not trusted: it must not run scripts in the API's origin.
        self.headers["Content-Security-Policy"] = "sandbox"
        node = self._place.node
        if not_modified := self._not_modified(f'"{self._place.cid}"'):
            return not_modified
        if isinstance(node, File):
            return await self._file(node.size)
        if isinstance(node, Symlink):
            raise InvalidContent(f"{self._name} is a symlink; symlinks are not followed")
        return await self._listing()

    def _not_modified(self, etag: str) -> Response | None:
        """Set the Etag; a 304 response if the client has this version already."""
        self.headers["Etag"] = etag
        known = [part.strip() for part in self._request.headers.get("if-none-match", "").split(",")]
        bare = etag.removeprefix("W/")
        if "*" in known or any(part.removeprefix("W/") == bare for part in known):
            return Response(status_code=304, headers=self.headers)
        return None

    async def _file(self, size: int) -> Response:
        media_type = mimetypes.guess_type(self._name)[0] or "application/octet-stream"
        if media_type.startswith("text/"):
            media_type += "; charset=utf-8"
        self.headers["Accept-Ranges"] = "bytes"
        start, end = 0, size
        part = _range_of(self._request.headers.get("range", ""), size)
        condition = self._request.headers.get("if-range", "")
        if part is not None and condition in ("", self.headers["Etag"]):
            start, end = part
            if start >= end:
                headers = {**self.headers, "Content-Range": f"bytes */{size}"}
                return Response(status_code=416, headers=headers)
            self.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self.headers["Content-Length"] = str(end - start)
        pieces = self._content.reader.file(self._place.cid, start, end)
        return await self._stream(pieces, media_type, 206 if "Content-Range" in self.headers else 200)

    async def _listing(self) -> Response:
        names = await self._content.reader.entries(self._place)
        base = quote(self._request.url.path.rstrip("/"))
        page = await trio.to_thread.run_sync(_page, self._name, base, names)
        return Response(page, media_type="text/html", headers=self.headers)

    async def _stream(
        self, pieces: AsyncGenerator[bytes, None], media_type: str, status: int = 200
    ) -> Response:
        if self._request.method == "HEAD":
            return Response(status_code=status, media_type=media_type, headers=self.headers)
        # Read the first piece before the response starts, so that missing content is an error response.
        first = await anext(pieces, b"")
        return StreamingResponse(_chained(first, pieces), status, media_type=media_type, headers=self.headers)


def _page(title: str, base: str, names: Sequence[str]) -> str:
    """The page of a folder at the path `base`. Takes a second for very long names."""
    listed = names[:MAX_LISTED]
    items = [_ITEM.format(link=f"{base}/{quote(name, safe='')}", name=html.escape(name)) for name in listed]
    if more := len(names) - len(listed):
        items.append(f"<li>and {more:,} more, which are not listed")
    return _PAGE.format(title=html.escape(title), items="".join(items))


async def _chained(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


def _range_of(text: str, size: int) -> tuple[int, int] | None:
    """Start and end of the requested range, empty if it is outside the file. None, for the whole file,
    unless `text` is exactly one valid range."""
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None or match[1] == match[2] == "":
        return None
    if not match[1]:
        return max(size - int(match[2]), 0), size
    start = int(match[1])
    if match[2] and int(match[2]) < start:
        return None
    return start, min(int(match[2]) + 1, size) if match[2] else size
