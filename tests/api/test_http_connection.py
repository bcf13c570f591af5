"""One HTTP connection: what is written when, and when it is closed, on a pair of sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bacalhau_p2p.api.http_connection import SMALL, IdleWatch, TimedStream, serve_http

REQUEST = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n"


class RecordingStream(TimedStream):
    """Remembers what it wrote to the socket at once."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream, grace=10, min_rate=1e6)
        self.written: list[bytes] = []

    def _write(self, data: bytes) -> int:
        self.written.append(data)
        return super()._write(data)


async def stream_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        return client, await listener.accept()


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[tuple[trio.SocketStream, RecordingStream]]:
    """A client's stream, and the server's. The block ends when both ends are closed."""
    config = Config()
    config.accesslog = config.errorlog = None
    config.keep_alive_timeout = 0
    client, accepted = await stream_pair()
    stream = RecordingStream(accepted)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                serve_http, app, config, WorkerContext(None), 3600, ConnectionState({}), stream
            )
            async with client:
                yield client, stream


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(f"path {scope['path']}.")(scope, receive, send)


async def received(stream: trio.SocketStream, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = await stream.receive_some()
        assert piece, data
        data += piece
    return data


async def test_a_response_whose_length_is_known_is_written_in_one_piece():
    async with served(echo) as (client, stream):
        for number in range(3):
            await client.send_all(REQUEST % number)
            whole = await received(client, b".")
            assert stream.written.pop() == whole
            assert not stream.written


async def test_a_head_does_not_wait_for_a_body_of_unknown_length():
    go = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        await go.wait()
        yield b"late"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(body())(scope, receive, send)

    async with served(app) as (client, _):
        await client.send_all(REQUEST % 1)
        assert (await received(client, b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        go.set()
        assert b"late" in await received(client, b"0\r\n\r\n")


async def test_requests_that_come_together_are_answered_in_order():
    async with served(echo) as (client, _):
        await client.send_all(b"".join(REQUEST % number for number in range(5)))
        answers = await received(client, b"path /4.")
        assert [line for line in answers.split(b"path ")[1:] if line[:2] in b"/0/1/2/3/4"]
        places = [answers.index(b"path /%d." % number) for number in range(5)]
        assert places == sorted(places)


async def test_large_and_small_responses_keep_their_order_while_the_client_is_slow():
    size = 64 * SMALL

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        letter = scope["path"][1:]
        await PlainTextResponse(letter * (size if letter in "13" else 1))(scope, receive, send)

    async with served(app) as (client, stream):
        stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
        await client.send_all(b"".join(REQUEST % number for number in range(1, 5)))
        data = b""
        while data.count(b"\r\n\r\n") < 4 or not data.endswith(b"4"):
            data += await client.receive_some(SMALL)
        bodies = [part.partition(b"HTTP/")[0] for part in data.split(b"\r\n\r\n")[1:]]
        assert bodies == [b"1" * size, b"2", b"3" * size, b"4"]


async def test_a_response_does_not_wait_for_the_rest_of_the_request():
    """A client that is refused while it uploads may read nothing before it has sent all."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["more_body"]
        await trio.testing.wait_all_tasks_blocked(0.05)  # what comes meanwhile fills hypercorn's queue
        await PlainTextResponse("full.", status_code=507)(scope, receive, send)

    async with served(refuse) as (client, _):
        await client.send_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, bytes(9_000_000))
            assert (await received(client, b"full.")).startswith(b"HTTP/1.1 507")
            nursery.cancel_scope.cancel()


async def test_a_connection_ends_as_soon_as_its_client_closes_it():
    async with served(echo) as (client, _):
        await client.send_all(REQUEST % 1)
        await received(client, b".")


async def test_an_app_that_fails_after_the_head_is_answered_by_an_error():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        raise KeyError

    async with served(app) as (client, _):
        await client.send_all(REQUEST % 1)
        assert (await received(client, b"\r\n\r\n")).startswith(b"HTTP/1.1 500 ")


async def test_a_response_that_fails_on_its_way_is_logged(caplog):
    async def breaks():
        yield b"begun"
        raise ValueError("no more")

    async with served(StreamingResponse(breaks())) as (client, _):
        await client.send_all(REQUEST % 1)
        while await client.receive_some():
            pass
    assert "event='response_failed' path='/1'" in caplog.text
    assert "ValueError: no more" in caplog.text


async def test_a_client_that_is_gone_does_not_fail_the_server():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await PlainTextResponse("x" * 100 * SMALL)(scope, receive, send)

    go = trio.Event()
    async with served(app) as (client, _):
        await client.send_all(REQUEST % 1)
        client.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await client.aclose()  # a reset
        go.set()


# --- idle connections -----------------------------------------------------------------------


class Group:
    """The tasks of a connection, as hypercorn starts them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.spawned = 0

    def spawn(self, call: Callable[..., Awaitable[None]], *args: object) -> None:
        self.spawned += 1
        self.nursery.start_soon(call, *args)


@pytest.fixture
async def watched(nursery):
    """A watch with a time-out of 5 s, the tasks it starts, when it closed the connection, and the server's
    end."""
    ends = trio.Event()
    closed: list[float] = []

    async def close() -> None:
        closed.append(trio.current_time())

    return IdleWatch(5, ends.wait), Group(nursery), closed, close, ends


async def test_a_connection_that_stays_idle_is_closed(autojump_clock, watched):
    watch, group, closed, close, _ = watched
    await watch.restart(group, close)
    await trio.sleep(4)
    await watch.stop()
    await trio.sleep(100)
    await watch.restart(group, close)
    await trio.sleep(4)
    await watch.stop()
    await watch.restart(group, close)
    await trio.sleep(4)
    assert not closed
    await trio.sleep(100)
    assert closed == [113]
    assert group.spawned == 1


async def test_an_idle_connection_is_closed_when_the_server_ends(autojump_clock, watched):
    watch, group, closed, close, ends = watched
    await watch.restart(group, close)
    await trio.sleep(1)
    ends.set()
    await trio.sleep(100)
    assert closed == [1]


async def test_a_request_is_finished_when_the_server_ends_and_then_its_connection_is_closed(
    autojump_clock, watched
):
    watch, group, closed, close, ends = watched
    await watch.restart(group, close)
    await watch.stop()
    ends.set()
    await trio.sleep(20)
    assert not closed
    await watch.restart(group, close)
    await trio.sleep(1)
    assert closed == [20]


async def test_a_connection_that_is_closed_is_not_watched_any_more(autojump_clock, watched):
    watch, group, closed, close, _ = watched
    await watch.restart(group, close)
    watch.end()
    await trio.sleep(100)
    await watch.restart(group, close)
    await trio.sleep(100)
    assert not closed
    assert group.spawned == 1
