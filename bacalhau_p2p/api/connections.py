"""Connections to the API: how many there may be, and how long each may be silent.

Whoever can reach the port can connect, also without a token. So connections are limited by address and in
all; beyond, the one that has kept us waiting longest makes room. `hypercorn.trio.serve` has no place for
that: it accepts by itself. Here its connection handler gets streams that were counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp

from bacalhau_p2p.api.http_connection import TimedStream, serve_http
from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.model.api_errors import error_to_json
from bacalhau_p2p.runtime.client_networks import is_loopback, network_of
from bacalhau_p2p.transports.faults import FaultBarrier

MAX_CONNECTIONS = 512
"""Connections to the API in all; fewer when this process may open few files."""
MAX_CONNECTIONS_PER_ADDRESS = 64
"""Connections from one IPv4 address or IPv6 /64 network. Programs on this machine may have all."""
LOCAL_SHARE = 4
"""One in so many connections is kept for programs on this machine."""
TRANSFER_GRACE = 30.0
"""Seconds that a client may take for a body or for one part of a response, beyond those by its size."""
MIN_RATE = 8192
"""Bytes per second at which bodies must arrive and responses must be taken."""
IDLE_TIMEOUT = 5.0
"""Seconds for a request line and headers to arrive, and for a connection to be kept after a response."""
MAX_STREAMS = 16
"""Requests at the same time on one HTTP/2 connection."""

Client = tuple[str, int]
"""Address and port."""


@dataclass(eq=False, slots=True)
class Connection:
    """One connection. Either we wait for its client (for a request, a body, or to take a response), or the
    client waits for us."""

    client: Client
    origin: str | None
    """The network that its address is counted under; None for this machine."""
    stream: trio.SocketStream
    waiting_since: float
    """When we last began to wait for the client."""
    working: int = 0
    """Requests for which the client waits for us."""

    def client_waits(self) -> _Wait:
        """For the length of the block the client waits for us."""
        return _Wait(self._begin, self._end)

    def we_wait(self) -> _Wait:
        """For the length of the block, within `client_waits`, we wait for the client."""
        return _Wait(self._end, self._begin)

    def _begin(self) -> None:
        self.working += 1

    def _end(self) -> None:
        self.working -= 1
        if not self.working:
            self.waiting_since = trio.current_time()


class _Wait:
    """A block with a call before and after it; several for each request, so it costs little."""

    __slots__ = ("_after", "_before")

    def __init__(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._before = before
        self._after = after

    def __enter__(self) -> None:
        self._before()

    def __exit__(self, *_: object) -> None:
        self._after()


class ConnectionTable:
    """The connections to the API."""

    def __init__(self, most: int, counters: Counter[str]) -> None:
        self._most = most
        self._counters = counters
        self._connections: dict[Client, Connection] = {}
        self._by_origin: Counter[str | None] = Counter()

    def __len__(self) -> int:
        return len(self._connections)

    @contextmanager
    def counted(self, stream: trio.SocketStream) -> Iterator[bool]:
        """Count a connection for the length of the block; False when it must be refused."""
        client = cast("Client", tuple(stream.socket.getpeername()[:2]))
        connection = Connection(client, _origin(client[0]), stream, trio.current_time())
        if not self._make_room(connection.origin):
            self._counters["api_connections_refused"] += 1
            yield False
            return
        self._connections[client] = connection
        self._by_origin[connection.origin] += 1
        try:
            yield True
        finally:
            self._remove(connection)

    def get(self, client: Client | None) -> Connection | None:
        """The connection of a client that is still counted."""
        return None if client is None else self._connections.get(client)

    def close_all(self) -> None:
        """Close the sockets of all connections, also under tasks that are sending."""
        for connection in self._connections.values():
            connection.stream.socket.close()

    def _make_room(self, origin: str | None) -> bool:
        if origin is None:
            return len(self._connections) < self._most or self._drop_waiting()
        if self._by_origin[origin] >= MAX_CONNECTIONS_PER_ADDRESS:
            return self._drop_waiting({origin})
        remote = len(self._connections) - self._by_origin[None]
        if remote >= self._most - self._most // LOCAL_SHARE or len(self._connections) >= self._most:
            return self._drop_waiting(self._by_origin.keys() - {None})
        return True

    def _drop_waiting(self, origins: Set[str | None] | None = None) -> bool:
        """Close the connection that has kept us waiting longest, of these origins or of any."""
        waiting = [
            connection
            for connection in self._connections.values()
            if not connection.working and (origins is None or connection.origin in origins)
        ]
        if not waiting:
            return False
        longest = min(waiting, key=lambda connection: connection.waiting_since)
        self._counters["api_connections_dropped"] += 1
        self._remove(longest)
        longest.stream.socket.close()
        return True

    def _remove(self, connection: Connection) -> None:
        if self._connections.get(connection.client) is connection:
            del self._connections[connection.client]
            self._by_origin[connection.origin] -= 1
            if not self._by_origin[connection.origin]:
                del self._by_origin[connection.origin]


def _origin(host: str) -> str | None:
    return None if is_loopback(host) else network_of(host)


class ConnectionServer:
    """Accepts connections and speaks HTTP on them, with hypercorn."""

    def __init__(self, app: ASGIApp, table: ConnectionTable, counters: Counter[str]) -> None:
        self._table = table
        self._counters = counters
        config = Config()
        config.accesslog = config.errorlog = None
        config.keep_alive_timeout = 0  # `serve_http` waits
        config.h2_max_concurrent_streams = MAX_STREAMS
        self._context = WorkerContext(None)
        self._speak = partial(serve_http, app, config, self._context, IDLE_TIMEOUT)

    async def run(self, listener: trio.SocketListener, stop: trio.Event, grace: float) -> None:
        """Serve until `stop` is set. Open requests then get `grace` seconds to finish."""
        async with trio.open_nursery() as closing:
            async with trio.open_nursery() as connections:
                try:
                    await self._accept(listener, connections, stop)
                    await self._context.terminated.set()  # hypercorn closes connections that are idle
                finally:
                    connections.cancel_scope.deadline = trio.current_time() + grace
                    closing.start_soon(self._close_after, grace)
            closing.cancel_scope.cancel()

    async def _accept(
        self, listener: trio.SocketListener, connections: trio.Nursery, stop: trio.Event
    ) -> None:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(
                partial(trio.serve_listeners, self._serve, [listener], handler_nursery=connections)
            )
            await stop.wait()
            accepting.cancel_scope.cancel()

    async def _close_after(self, grace: float) -> None:
        """End also what cannot be cancelled: hypercorn shields its sending."""
        try:
            await trio.sleep(grace)
        finally:
            self._table.close_all()

    async def _serve(self, stream: trio.SocketStream) -> None:
        with (
            FaultBarrier(self._counters, "api_faults", "an API connection", expected=OSError),
            self._table.counted(stream) as admitted,
        ):
            if admitted:
                timed = TimedStream(stream, grace=TRANSFER_GRACE, min_rate=MIN_RATE)
                await self._speak(ConnectionState({}), timed)
            else:
                await _refuse(stream)


async def _refuse(stream: trio.SocketStream) -> None:
    body = json.dumps(error_to_json(ApiError("too many connections; try again later", status=503))).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with trio.move_on_after(1):
        await stream.send_all(head.encode() + body)
