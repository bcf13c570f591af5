"""One request in plain HTTP and its answer, each read and framed anew: nothing hides between two requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import h11
import trio

from bacalhau_p2p.outbound.proxy.targets import Target, headers_to_client, headers_to_server
from bacalhau_p2p.outbound.proxy.traffic import CHUNK, ENDINGS, MeteredStream
from bacalhau_p2p.runtime.tasks import background


class Exchange:
    """Passes on one request whose head was read, and the answer to it."""

    def __init__(
        self,
        client: trio.SocketStream,
        from_client: h11.Connection,
        upstream: MeteredStream,
        *,
        max_header: int,
    ) -> None:
        """`max_header`: bytes of the head of the answer."""
        self._client = client
        self._from_client = from_client
        self._upstream = upstream
        self._to_server = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_header)

    async def run(self, request: h11.Request, target: Target) -> None:
        """Until the answer is complete, even if the request is not. Raises ENDINGS."""
        headers = headers_to_server(request.headers, target.host)
        await self._send(h11.Request(method=request.method, target=target.path or b"/", headers=headers))
        async with background() as nursery:

            async def send_body() -> None:
                try:
                    await self._send_body()
                except ENDINGS:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(send_body)
            await self._answer()
        await self._client.send_eof()

    async def _send_body(self) -> None:
        while True:
            event = await _next(self._from_client, self._client.receive_some)
            if not isinstance(event, h11.Data | h11.EndOfMessage):
                return
            await self._send(event)
            if isinstance(event, h11.EndOfMessage):
                return

    async def _answer(self) -> None:
        while True:
            event = await _next(self._to_server, lambda _: self._upstream.receive_some())
            if isinstance(event, h11.Response):
                headers, reason = headers_to_client(event.headers), event.reason
                event = h11.Response(status_code=event.status_code, headers=headers, reason=reason)
            elif not isinstance(event, h11.InformationalResponse | h11.Data | h11.EndOfMessage):
                raise trio.BrokenResourceError("closed without a whole answer")
            await self._client.send_all(self._from_client.send(event))
            if isinstance(event, h11.EndOfMessage):
                return

    async def _send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        if data := self._to_server.send(event):
            await self._upstream.send_all(data)


async def _next(connection: h11.Connection, receive: Callable[[int], Awaitable[bytes | bytearray]]) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(bytes(await receive(CHUNK)))
    return event
