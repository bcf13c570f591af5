"""Connections of the HTTP API: what is asked is answered whole, and nobody holds one open for nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
import trio.testing
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from bacalhau_p2p.api.connection import SMALL, Connection

WITHIN = 10.0


class Server:
    def __init__(self, port: int, context: WorkerContext) -> None:
        self.port = port
        self.context = context

    async def connect(self) -> Client:
        return Client(await trio.open_tcp_stream("127.0.0.1", self.port))


class Client:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, body: bytes = b"") -> None:
        headers = [("Host", "localhost"), ("Content-Length", str(len(body)))]
        parts = [
            h11.Request(method="PUT", target="/", headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        await self.stream.send_all(b"".join(self._http.send(part) or b"" for part in parts))

    async def answer(self) -> bytes:
        body = b""
        while not isinstance(event := self._http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                self._http.receive_data(await self.stream.receive_some())
            elif isinstance(event, h11.Data):
                body += event.data
            assert not isinstance(event, h11.ConnectionClosed)
        self._http.start_next_cycle()
        return body


@asynccontextmanager
async def _serving(app: Callable[..., Any], *, patience: float = 60.0) -> AsyncIterator[Server]:
    config = Config()
    config.keep_alive_timeout = patience
    context = WorkerContext(None)

    async def serve(stream: trio.SocketStream) -> None:
        await Connection(ASGIWrapper(app), config, context, ConnectionState({}), stream).run()

    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, serve, 0)
            yield Server(listeners[0].socket.getsockname()[1], context)
            nursery.cancel_scope.cancel()


async def _read(receive: Callable[..., Any]) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _send(send: Callable[..., Any], *pieces: bytes) -> None:
    length = str(sum(map(len, pieces))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    for number, piece in enumerate(pieces, start=1):
        await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})


async def _echo(scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    await _send(send, await _read(receive))


@pytest.mark.parametrize("size", [0, 1, SMALL, SMALL + 1, 8_000_000])
async def test_an_answer_arrives_whole_one_after_the_other(size: int) -> None:
    async with _serving(_echo) as server:
        client = await server.connect()
        for number in range(3):
            body = bytes([number]) * size
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.ask, body)
                assert await client.answer() == body


async def test_small_pieces_to_a_reader_who_pauses_arrive_in_order() -> None:
    pieces = [json.dumps(number).encode().rjust(4000) for number in range(3000)]  # more than sockets hold
    sent = trio.Event()

    async def app(scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await _read(receive)
        await _send(send, *pieces)
        sent.set()

    async with _serving(app) as server:
        client = await server.connect()
        await client.ask()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not sent.is_set()
        assert await client.answer() == b"".join(pieces)


async def test_a_connection_on_which_nothing_is_asked_is_closed() -> None:
    async with _serving(_echo, patience=0.02) as server:
        client = await server.connect()
        await client.ask(b"once")
        assert await client.answer() == b"once"
        assert await client.stream.receive_some() == b""


async def test_a_slow_answer_is_not_taken_for_idleness() -> None:
    go_on = trio.Event()

    async def app(scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await _read(receive)
        await go_on.wait()
        await _send(send, b"at last")

    async with _serving(app, patience=0.001) as server:
        client = await server.connect()
        await client.ask()
        await trio.testing.wait_all_tasks_blocked(0.05)
        go_on.set()
        assert await client.answer() == b"at last"


async def test_a_server_that_stops_closes_idle_connections_and_answers_what_was_asked() -> None:
    go_on = trio.Event()

    async def app(scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if await _read(receive) == b"wait":
            await go_on.wait()
        await _send(send, b"answer")

    async with _serving(app) as server:
        idle, busy = await server.connect(), await server.connect()
        await idle.ask()
        assert await idle.answer() == b"answer"
        await busy.ask(b"wait")
        await trio.testing.wait_all_tasks_blocked(0.05)
        await server.context.terminated.set()
        assert await idle.stream.receive_some() == b""
        go_on.set()
        assert await busy.answer() == b"answer"
        assert await busy.stream.receive_some() == b""


async def test_a_client_who_leaves_leaves_no_task_behind() -> None:
    async with _serving(_echo) as server:
        client = await server.connect()
        await client.ask(b"x")
        assert await client.answer() == b"x"
        before = _connections()
        await client.stream.aclose()
        while _connections() == before:
            await trio.testing.wait_all_tasks_blocked(0.005)


def _connections() -> int:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    waiting, found = [root], 0
    while waiting:
        task = waiting.pop()
        found += "_run_handler" in task.name
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found
