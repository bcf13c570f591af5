"""Deadlines for requests: a body must arrive, and a response must be taken, at a least rate."""

from __future__ import annotations

from math import inf

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bacalhau_p2p.api.connections import MIN_RATE, TRANSFER_GRACE, Connection, ConnectionTable
from bacalhau_p2p.api.http_connection import SMALL
from bacalhau_p2p.errors import ApiError


class Deadlines:
    """Ends requests of clients that stop sending or reading, and tells their connections who waits."""

    def __init__(self, app: ASGIApp, connections: ConnectionTable) -> None:
        self._app = app
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = self._connections.get(scope.get("client"))
        if connection is None:
            return  # it has made room for another
        with trio.CancelScope() as ended, connection.client_waits():
            small = 0 if scope["http_version"] == "2" else SMALL
            request = _TimedRequest(receive, send, connection, ended, small)
            await self._app(scope, request.receive, request.send)


class _TimedRequest:
    """Counts only the time that we wait for the client, not that in which we are busy with what came."""

    def __init__(
        self, receive: Receive, send: Send, connection: Connection, ended: trio.CancelScope, small: int
    ) -> None:
        """`small`: bytes of a last part of the response that is sent without a deadline here. Such a part is
        timed by its connection, if that does not write it at once; in HTTP/2 it may wait before."""
        self._receive = receive
        self._send = send
        self._connection = connection
        self._ended = ended
        self._received = 0
        self._waited = 0.0
        self._complete = False
        self._small = small

    async def receive(self) -> Message:
        """The next part of the body. Raises ApiError (408) when it is late."""
        if self._complete:
            return await self._receive()
        started = trio.current_time()
        message: Message | None = None
        with (
            self._connection.we_wait(),
            trio.move_on_after(TRANSFER_GRACE + self._received / MIN_RATE - self._waited),
        ):
            message = await self._receive()
        if message is None:
            reason = f"the request body came too slowly: {self._received} bytes arrived in time"
            raise ApiError(reason, status=408)
        self._waited += trio.current_time() - started
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the response. When the client does not take it, the request is cancelled, which
        closes the connection, because the response is not complete."""
        size = len(message.get("body", b""))
        if size <= self._small and not message.get("more_body", False):
            with self._connection.we_wait():
                await self._send(message)
            return
        self._ended.deadline = trio.current_time() + TRANSFER_GRACE + size / MIN_RATE
        try:
            with self._connection.we_wait():
                await self._send(message)
        finally:
            self._ended.deadline = inf
