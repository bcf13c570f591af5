"""Serves the connections of one job: tunnels to port 443, and requests in plain HTTP to port 80.

Every connection serves one request, whose host is checked: against the domains of the job, and then by its
addresses. So a redirect is nothing special: it is the next request of the job's own client.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

import h11
import trio

from bacalhau_p2p.outbound.addresses import AddressRefused
from bacalhau_p2p.outbound.dialing import Dialer
from bacalhau_p2p.outbound.proxy.connections import JobConnections, SharedConnections
from bacalhau_p2p.outbound.proxy.exchange import Exchange
from bacalhau_p2p.outbound.proxy.targets import RequestRefused, Target, target_of
from bacalhau_p2p.outbound.proxy.traffic import (
    CHUNK,
    ENDINGS,
    IDLE_TIMEOUT,
    MeteredStream,
    Traffic,
    TrafficExhausted,
)
from bacalhau_p2p.runtime.tasks import all_or_first_fault

MAX_HEADER = 16 * 1024
"""Bytes of a request line with all headers, and of those of an answer."""
HEADER_CHUNK = 2048
"""Bytes of them that are read at a time."""
HEADER_TIMEOUT = 30.0
"""Seconds for a job to send a request line and headers."""
CONNECT_TIMEOUT = 30.0
"""Seconds to resolve a name and to connect."""
MAX_PHRASE = 200
"""Bytes of the reason that the status line of a refusal has."""
LINGER = 2.0
"""Seconds for a job to take the reason of a refusal and close."""
MAX_LINGER = 1024 * 1024
"""Bytes that are read from it meanwhile, and dropped."""
NO_DESCRIPTOR_PAUSE = 0.1
"""Seconds until the next attempt to accept a connection when none could be."""


class HttpProxy:
    """The proxy of one job."""

    def __init__(
        self,
        domains: Collection[str],
        dialer: Dialer,
        shared: SharedConnections,
        *,
        traffic: Traffic | None = None,
        idle: float = IDLE_TIMEOUT,
    ) -> None:
        """`idle`: seconds without a byte after which a connection is closed."""
        self._domains = domains
        self._dialer = dialer
        self._idle = idle
        self._connections = JobConnections(shared)
        self.traffic = Traffic() if traffic is None else traffic

    async def serve(self, listener: trio.SocketListener) -> None:
        """Serve until cancelled; then all connections are closed, and the listener too."""
        async with listener, trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener.socket)
                await self._connections.room()
                try:
                    client = await listener.accept()
                except OSError:
                    await trio.sleep(NO_DESCRIPTOR_PAUSE)
                    continue
                await nursery.start(self._serve_one, client)

    async def _serve_one(
        self, client: trio.SocketStream, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with self._connections.one_more():
            task_status.started()
            async with client:
                with suppress(*ENDINGS):
                    await self._answer(client)

    async def _answer(self, client: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER)
        try:
            request = await self._request(client, connection)
            target = target_of(request, self._domains)
            upstream = await self._connect(target)
        except RequestRefused as refused:
            if refused.host:
                self.traffic.refuse(refused.host)
            await _refuse(client, connection, refused)
            return
        async with upstream:
            with trio.CancelScope() as scope:
                scope.deadline = trio.current_time() + self._idle
                metered = MeteredStream(upstream, self.traffic, scope, self._idle)
                if target.path is None:
                    await _tunnel(client, connection, metered)
                else:
                    await Exchange(client, connection, metered, max_header=MAX_HEADER).run(request, target)

    async def _request(self, client: trio.SocketStream, connection: h11.Connection) -> h11.Request:
        try:
            with trio.fail_after(HEADER_TIMEOUT):
                while (event := connection.next_event()) is h11.NEED_DATA:
                    # In small pieces: h11's limit does not count what arrives with the end of the headers.
                    connection.receive_data(bytes(await client.receive_some(HEADER_CHUNK)))
        except trio.TooSlowError:
            raise RequestRefused(408, f"no request within {HEADER_TIMEOUT:g} s") from None
        except h11.RemoteProtocolError as error:
            raise RequestRefused(error.error_status_hint, "not an HTTP request") from None
        if not isinstance(event, h11.Request):
            raise trio.BrokenResourceError("closed without a request")
        return event

    async def _connect(self, target: Target) -> trio.abc.HalfCloseableStream:
        host = target.host
        try:
            self.traffic.check()
            with trio.fail_after(CONNECT_TIMEOUT):
                return await self._dialer.connect(host, target.port)
        except TrafficExhausted as error:
            raise RequestRefused(403, str(error)) from None
        except AddressRefused:
            raise RequestRefused(403, f"{host} has an address that is not public", host) from None
        except trio.TooSlowError:
            raise RequestRefused(504, f"{host}: no connection within {CONNECT_TIMEOUT:g} s") from None
        except OSError as error:
            raise RequestRefused(502, f"{host}: {error.strerror or 'no connection'}") from None


async def _refuse(client: trio.SocketStream, connection: h11.Connection, refused: RequestRefused) -> None:
    body = f"bacalhau-p2p: {refused}\n".encode()
    headers = [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
        ("connection", "close"),
    ]
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    # Most clients show of a refused tunnel nothing but this phrase.
    phrase = str(refused).encode("ascii", "replace")[:MAX_PHRASE]
    answer = connection.send(h11.Response(status_code=refused.status, headers=headers, reason=phrase))
    await client.send_all((answer or b"") + (connection.send(h11.Data(data=body)) or b""))
    await client.send_eof()
    # To close with unread data would reset the connection, and the answer could be lost.
    with trio.move_on_after(LINGER):
        left = MAX_LINGER
        while left > 0 and (data := await client.receive_some(CHUNK)):
            left -= len(data)


async def _tunnel(client: trio.SocketStream, connection: h11.Connection, upstream: MeteredStream) -> None:
    """Pass on what both sides send, until both have ended or one breaks."""
    answer = connection.send(h11.Response(status_code=200, headers=[], reason="Connection established"))
    await client.send_all(answer or b"")
    early, _ = connection.trailing_data
    if early:
        await upstream.send_all(early)

    async def to_server() -> None:
        while data := bytes(await client.receive_some(CHUNK)):
            await upstream.send_all(data)
        await upstream.send_eof()

    async def to_client() -> None:
        while data := await upstream.receive_some():
            await client.send_all(data)
        await client.send_eof()

    await all_or_first_fault([to_server, to_client], *ENDINGS)
