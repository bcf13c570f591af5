"""The output of a job: as lines of JSON, and by WebSocket for Bacalhau's clients."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated

import trio
from fastapi import APIRouter, Query, Response, WebSocket
from fastapi.responses import StreamingResponse
from pydantic_core import to_json
from starlette.websockets import WebSocketDisconnect

from bacalhau_p2p.api.bodies.jobs import LogPieceBody
from bacalhau_p2p.api.openapi import lines_of
from bacalhau_p2p.bprotocol.log_streams import MAX_TAIL
from bacalhau_p2p.errors import BacalhauError
from bacalhau_p2p.model.api_errors import error_to_json
from bacalhau_p2p.model.logs import LogPiece, LogQuery, LogStream
from bacalhau_p2p.model.logs_json import piece_to_json
from bacalhau_p2p.node import Node
from bacalhau_p2p.runtime.tasks import background

TAIL = 10
"""Lines that a client gets which asks for the end and does not say how much of it."""
MAX_LINE = 64 * 1024
"""Characters of a line that a WebSocket sends as one."""

Pieces = AsyncGenerator[LogPiece | None, None]


def log_routes(node: Node) -> APIRouter:
    routes = APIRouter()

    @routes.get("/jobs/{job_id}/logs", response_class=StreamingResponse, responses=lines_of(LogPieceBody))
    async def get_logs(
        job_id: str,
        follow: bool = False,
        tail: Annotated[int | None, Query(ge=0, le=MAX_TAIL)] = None,
        execution_id: str = "",
    ) -> Response:
        """What a job wrote, and with `follow` what it writes: a line of JSON for each piece, empty lines in
        between when nothing comes."""
        query = LogQuery(execution=execution_id, follow=follow, tail=tail)
        pieces = node.logs(node.requester.resolve(job_id), query)
        first = await anext(pieces, None)  # an error has its status as long as nothing was sent
        return StreamingResponse(
            _lines(first, pieces), media_type="application/x-ndjson", headers={"Cache-Control": "no-store"}
        )

    @routes.websocket("/jobs/{job_id}/logs")
    async def follow_logs(socket: WebSocket, job_id: str) -> None:
        await socket.accept()
        given = socket.query_params
        query = LogQuery(
            execution=given.get("execution_id", ""),
            follow=given.get("follow", "").lower() == "true",
            tail=TAIL if given.get("tail", "").lower() == "true" else None,
        )
        with suppress(WebSocketDisconnect):
            async with background() as nursery:
                nursery.start_soon(_until_closed, socket, nursery.cancel_scope)
                try:
                    async with aclosing(node.logs(node.requester.resolve(job_id), query)) as pieces:
                        await _send_lines(socket, pieces)
                except BacalhauError as error:
                    await socket.send_json({"error": str(error), "value": {"Type": 0, "Line": ""}})
                await socket.close()

    return routes


async def _lines(first: LogPiece | None, pieces: Pieces) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        try:
            yield _line(first)
            async for piece in pieces:
                yield _line(piece)
        except BacalhauError as error:
            yield to_json(error_to_json(error)) + b"\n"


def _line(piece: LogPiece | None) -> bytes:
    return b"\n" if piece is None else to_json(piece_to_json(piece)) + b"\n"


async def _send_lines(socket: WebSocket, pieces: Pieces) -> None:
    """Line by line, as Bacalhau's clients print them."""
    waiting = {LogStream.STDOUT: b"", LogStream.STDERR: b""}
    async for piece in pieces:
        if piece is None:
            continue
        *lines, waiting[piece.stream] = (waiting[piece.stream] + piece.data).split(b"\n")
        for line in lines:
            await _send_line(socket, piece.stream, line + b"\n")
        if len(waiting[piece.stream]) > MAX_LINE:
            await _send_line(socket, piece.stream, waiting[piece.stream])
            waiting[piece.stream] = b""
    for stream, rest in waiting.items():
        if rest:
            await _send_line(socket, stream, rest)


async def _send_line(socket: WebSocket, stream: LogStream, line: bytes) -> None:
    await socket.send_json({"value": {"Type": int(stream), "Line": line.decode(errors="replace")}})


async def _until_closed(socket: WebSocket, scope: trio.CancelScope) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
    scope.cancel()
