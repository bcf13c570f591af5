"""Deadlines for requests: a body must arrive, and a response must be taken, at a least rate."""

from __future__ import annotations

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bacalhau_p2p.api.connections import ConnectionTable
from bacalhau_p2p.errors import ApiError

TRANSFER_GRACE = 30.0
"""Seconds that the client may take for a body or for one part of a response, beyond those by its size."""
MIN_RATE = 8192
"""Bytes per second at which bodies must arrive and responses must be taken."""


class Deadlines:
    """Ends requests of clients that stop sending or reading, and counts requests by connection."""

    def __init__(self, app: ASGIApp, connections: ConnectionTable) -> None:
        self._app = app
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._connections.requesting(scope.get("client")), trio.CancelScope() as request:
            await self._app(scope, _TimedBody(receive).receive, _timed(send, request))


class _TimedBody:
    """Counts only the time that we wait for the client, not that in which we are busy with what came."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._received = 0
        self._waited = 0.0
        self._ended = False

    async def receive(self) -> Message:
        """The next part. Raises ApiError (408) when it is late."""
        if self._ended:
            return await self._receive()
        started = trio.current_time()
        message: Message | None = None
        with trio.move_on_after(TRANSFER_GRACE + self._received / MIN_RATE - self._waited):
            message = await self._receive()
        if message is None:
            raise ApiError(f"request body too slow: {self._received} bytes in time", status=408)
        self._waited += trio.current_time() - started
        self._received += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        return message


def _timed(send: Send, request: trio.CancelScope) -> Send:
    async def send_in_time(message: Message) -> None:
        with trio.move_on_after(TRANSFER_GRACE + len(message.get("body", b"")) / MIN_RATE) as sending:
            await send(message)
        if sending.cancelled_caught:
            request.cancel()  # the connection is closed, because the response is not complete
            await trio.lowlevel.checkpoint()

    return send_in_time
