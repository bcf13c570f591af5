"""How many connections the API has and how long they may be silent, on real sockets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import h2.config
import h2.connection
import pytest
import trio
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bacalhau_p2p.api import connections
from bacalhau_p2p.api.connections import ConnectionServer, ConnectionTable
from bacalhau_p2p.api.deadlines import Deadlines

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BROKEN = (trio.BrokenResourceError, OSError)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


class Waiting:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.asked = 0
        self.changed = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        self.changed.set()
        await self.go.wait()
        await hello(scope, receive, send)

    async def until_asked(self, times: int) -> None:
        while self.asked < times:
            self.changed = trio.Event()
            await self.changed.wait()


class Endless:
    """An application that sends for ever."""

    def __init__(self) -> None:
        self.began, self.ended = trio.Event(), trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.began.set()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_on_disconnect, receive, nursery.cancel_scope)
                while True:
                    body = bytes(1024 * 1024)
                    await send({"type": "http.response.body", "body": body, "more_body": True})
        finally:
            self.ended.set()

    async def _stop_on_disconnect(self, receive: Receive, scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


@dataclass
class Served:
    port: int
    table: ConnectionTable
    counters: Counter[str]
    server: ConnectionServer
    stop: trio.Event
    stopped: trio.Event

    async def connect(self, sent: bytes = b"") -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(sent)
        return stream

    async def connect_counted(self, sent: bytes = b"") -> trio.SocketStream:
        """A connection that the server has accepted."""
        before = sum(self.seen())
        stream = await self.connect(sent)
        await self.until(lambda: sum(self.seen()) > before)
        return stream

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await trio.lowlevel.checkpoint()

    def requests(self) -> int:
        """Requests for which a client waits."""
        return sum(connection.working for connection in self.table._connections.values())

    def seen(self) -> tuple[int, int, int]:
        refused = self.counters["api_connections_refused"]
        return len(self.table), self.counters["api_connections_dropped"], refused


@asynccontextmanager
async def serving(app: ASGIApp, *, most: int = 100, grace: float = 0.05) -> AsyncIterator[Served]:
    counters: Counter[str] = Counter()
    table = ConnectionTable(most, counters)
    server = ConnectionServer(Deadlines(app, table), table, counters)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    stop, stopped = trio.Event(), trio.Event()

    async def run() -> None:
        await server.run(listener, stop, grace)
        stopped.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield Served(listener.socket.getsockname()[1], table, counters, server, stop, stopped)
            stop.set()


async def everything(stream: trio.SocketStream) -> bytes:
    """What arrives until the server closes the connection."""
    received = b""
    try:
        async for piece in stream:
            received += piece
    except BROKEN:
        pass
    return received


async def one_answer(stream: trio.SocketStream) -> bytes:
    received = b""
    while not received.endswith(b"hello"):
        piece = await stream.receive_some()
        assert piece, received
        received += piece
    return received


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_a_connection_without_a_request_is_closed(monkeypatch, sent):
    monkeypatch.setattr(connections, "IDLE_TIMEOUT", 0.05)
    async with serving(hello) as served:
        assert await everything(await served.connect(sent)) == b""
        await served.until(lambda: len(served.table) == 0)


async def test_a_connection_is_kept_for_further_requests_and_then_closed(monkeypatch):
    monkeypatch.setattr(connections, "IDLE_TIMEOUT", 0.2)
    async with serving(hello) as served:
        stream = await served.connect()
        for _ in range(3):
            await stream.send_all(REQUEST)
            await one_answer(stream)
        assert await everything(stream) == b""


async def test_idle_connections_make_room_the_longest_idle_first():
    async with serving(hello, most=3) as served:
        idle = [await served.connect_counted() for _ in range(5)]
        assert await one_answer(await served.connect(REQUEST))
        assert [await everything(stream) for stream in idle[:3]] == [b""] * 3
        assert served.counters == {"api_connections_dropped": 3}
        await idle[4].send_all(REQUEST)
        await one_answer(idle[4])


async def test_a_connection_is_refused_while_all_are_in_use():
    app = Waiting()
    async with serving(app, most=2) as served:
        used = [await served.connect(REQUEST) for _ in range(2)]
        await app.until_asked(2)
        refused = await everything(await served.connect())
        assert refused.startswith(b"HTTP/1.1 503 ")
        body = json.loads(refused.partition(b"\r\n\r\n")[2])
        assert (body["Status"], body["Message"]) == (503, "too many connections; try again later")
        assert served.seen() == (2, 0, 1)
        app.go.set()
        for stream in used:
            await one_answer(stream)
        await served.until(lambda: served.requests() == 0)
        await one_answer(await served.connect(REQUEST))


async def test_clients_that_do_not_send_or_read_make_room():
    """A body that never comes, and a response that nobody reads."""

    async def read_body(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/endless":
            await Endless()(scope, receive, send)
        while scope["method"] == "PUT" and (await receive())["type"] != "http.disconnect":
            pass
        await hello(scope, receive, send)

    async with serving(read_body, most=4) as served:
        put = b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        kept = [await served.connect_counted(put) for _ in range(4)]
        await served.until(lambda: served.requests() == 0)
        for number in range(4):
            kept.append(await served.connect(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            dropped = number + 1
            await served.until(lambda: served.counters["api_connections_dropped"] == dropped)  # noqa: B023
        await one_answer(await served.connect(REQUEST))
        assert served.counters["api_connections_refused"] == 0


async def test_connections_of_one_address_are_limited_and_those_of_this_machine_are_not(monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS_PER_ADDRESS", 2)
    monkeypatch.setattr(connections, "_origin", lambda host: None if host == "127.0.0.1" else host)
    app, kept = Waiting(), []
    async with serving(app, most=8) as served:

        async def connect_from(host: str) -> trio.SocketStream:
            stream = await trio.open_tcp_stream("127.0.0.1", served.port, local_address=host)
            await stream.send_all(REQUEST)
            kept.append(stream)
            return stream

        for number, host in enumerate(["127.0.0.2"] * 2 + ["127.0.0.3"] * 2):
            await connect_from(host)
            await app.until_asked(number + 1)
        for host in ("127.0.0.2", "127.0.0.3"):
            assert b" 503 " in await everything(await connect_from(host))
        for number in range(2):
            await connect_from("127.0.0.4")
            await app.until_asked(5 + number)
        assert b" 503 " in await everything(await connect_from("127.0.0.5"))  # a quarter is kept
        for number in range(2):
            kept.append(await served.connect(REQUEST))
            await app.until_asked(7 + number)


async def test_no_other_machine_displaces_the_programs_on_this_one(monkeypatch):
    """With nobody else there, a stranger took the place of a program that was idle."""
    monkeypatch.setattr(connections, "_origin", lambda host: None if host == "127.0.0.1" else host)
    async with serving(hello, most=2) as served:
        kept = [await served.connect_counted() for _ in range(2)]
        stranger = await trio.open_tcp_stream("127.0.0.1", served.port, local_address="127.0.0.2")
        assert b" 503 " in await everything(stranger)
        for stream in kept:
            await stream.send_all(REQUEST)
            assert b"hello" in await one_answer(stream)


async def test_a_client_that_does_not_read_loses_its_connection(monkeypatch):
    monkeypatch.setattr(connections, "TRANSFER_GRACE", 0.05)
    monkeypatch.setattr(connections, "MIN_RATE", 1e9)
    app = Endless()
    async with serving(app) as served:
        stream = await served.connect(REQUEST)
        await app.ended.wait()
        assert (await everything(stream)).startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_does_not_read_does_not_delay_the_end():
    app = Endless()
    async with serving(app) as served:
        stream = await served.connect(REQUEST)
        await served.until(app.began.is_set)
        served.stop.set()
        await served.stopped.wait()
    assert app.ended.is_set()
    assert len(served.table) == 0
    await stream.aclose()


async def test_a_server_that_is_cancelled_closes_what_does_not_read():
    app = Endless()
    async with serving(app) as served:
        stream = await served.connect_counted(REQUEST)
    await app.ended.wait()
    await stream.aclose()


async def test_a_fault_of_one_connection_is_counted_and_the_others_go_on():
    async with serving(hello) as served:
        speak = served.server._speak

        async def fail(*args: object) -> None:
            served.server._speak = speak
            raise UnicodeDecodeError("ascii", b"\xff", 0, 1, "not ASCII")

        served.server._speak = fail
        assert await everything(await served.connect(REQUEST)) == b""
        assert served.counters == {"api_faults": 1}
        await one_answer(await served.connect(REQUEST))


@pytest.mark.parametrize("path", [b"/\xff", b"\x00", b"", b"*", b"/" + b"a" * 10_000])
async def test_any_path_over_http2_leaves_the_server_running(path):
    """hypercorn raises for a path that is not ASCII, before the application could look at the request."""
    client = h2.connection.H2Connection(
        h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    )
    client.initiate_connection()
    headers = [(b":method", b"GET"), (b":path", path), (b":scheme", b"http"), (b":authority", b"localhost")]
    client.send_headers(1, headers, end_stream=True)
    async with serving(hello) as served:
        stream = await served.connect(client.data_to_send())
        assert await stream.receive_some()
        await one_answer(await served.connect(REQUEST))
        assert served.counters["api_faults"] == (not path.isascii())


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1", None),
        ("127.9.9.9", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_connections_are_counted_by_network(host, origin):
    assert connections._origin(host) == origin
