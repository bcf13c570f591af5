"""A request of a client that stops sending or reading ends, in virtual time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import pytest
import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bacalhau_p2p.api.connections import MIN_RATE, TRANSFER_GRACE, ConnectionTable
from bacalhau_p2p.api.deadlines import Deadlines
from bacalhau_p2p.errors import ApiError

CLIENT = ("127.0.0.1", 1)
SCOPE = {"type": "http", "http_version": "1.1", "client": CLIENT}


class Socket:
    """The socket of the client, and the stream on it."""

    def __init__(self) -> None:
        self.socket = self

    def getpeername(self) -> tuple[str, int]:
        return CLIENT


async def call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    table = ConnectionTable(1, Counter())
    with table.counted(Socket()):
        await Deadlines(app, table)(scope, receive, send)


def sending(parts: Iterable[tuple[float, bytes]], *, ends: bool) -> Receive:
    """A client that sends each part after a pause."""
    left = list(parts)

    async def receive() -> Message:
        if not left:
            if not ends:
                await trio.sleep_forever()
            return {"type": "http.request", "body": b"", "more_body": False}
        pause, body = left.pop(0)
        await trio.sleep(pause)
        return {"type": "http.request", "body": body, "more_body": True}

    return receive


async def unread(message: Message) -> None:
    await trio.sleep_forever()


async def read(message: Message) -> None:
    await trio.lowlevel.checkpoint()


async def body_of(receive: Receive, *, busy: float = 0.0) -> int:
    """The bytes of the body that the application received."""
    size = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal size
        more = True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
            await trio.sleep(busy)

    await call(app, SCOPE, receive, read)
    return size


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [(1, b"{")],
        [(20, b"x")] * 10,
        [(TRANSFER_GRACE + 1, b"x")],
        [(1, b"x")] * 100,
        [(2, bytes(MIN_RATE))] * 100,
    ],
    ids=["nothing", "one byte", "a byte now and then", "late", "a trickle", "half the rate"],
)
async def test_a_body_that_does_not_come_is_an_error(autojump_clock, parts):
    with pytest.raises(ApiError, match="the request body came too slowly: ") as refused:
        await body_of(sending(parts, ends=False))
    assert refused.value.status == 408


async def test_a_slow_but_steady_body_arrives(autojump_clock):
    parts = [(1, bytes(MIN_RATE))] * 1000
    assert await body_of(sending(parts, ends=True)) == 1000 * MIN_RATE


async def test_the_time_that_the_node_takes_for_a_body_does_not_count(autojump_clock):
    parts = [(0.1, bytes(100))] * 100
    assert await body_of(sending(parts, ends=True), busy=60) == 10_000


async def test_after_the_body_the_client_may_wait_as_long_as_the_job(autojump_clock):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        with trio.move_on_after(300) as waiting:
            await receive()
        assert waiting.cancelled_caught

    async def receive() -> Message:
        if receive_calls:
            await trio.sleep_forever()
        receive_calls.append(1)
        return {"type": "http.request", "body": b"", "more_body": False}

    receive_calls: list[int] = []
    await call(app, SCOPE, receive, read)


@pytest.mark.parametrize("size", [0, 100, MIN_RATE * 10])
async def test_a_response_that_nobody_reads_ends_the_request(autojump_clock, size):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
        raise AssertionError("goes on")

    await call(app, SCOPE, sending([], ends=False), unread)
    assert trio.current_time() == pytest.approx(TRANSFER_GRACE + size / MIN_RATE)


@pytest.mark.parametrize(("version", "waits"), [("1.1", math.inf), ("2", TRANSFER_GRACE + 100 / MIN_RATE)])
async def test_a_small_last_part_is_timed_by_its_connection_except_in_http_2(autojump_clock, version, waits):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body", "body": bytes(100)})

    with trio.move_on_after(1000):
        await call(app, {**SCOPE, "http_version": version}, sending([], ends=False), unread)
    assert trio.current_time() == pytest.approx(min(waits, 1000))


async def test_what_is_no_request_passes():
    passed = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append((receive, send))

    receive = sending([], ends=True)
    await call(app, {"type": "websocket"}, receive, read)
    assert passed == [(receive, read)]


async def test_a_connection_knows_who_waits_for_whom(autojump_clock):
    table = ConnectionTable(1, Counter())
    states = []

    def state() -> tuple[int, float]:
        connection = table.get(CLIENT)
        assert connection is not None
        return connection.working, connection.waiting_since

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            states.append(state())
        await trio.sleep(100)
        await send({"type": "http.response.body", "body": b""})
        states.append(state())

    async def receive() -> Message:
        states.append(state())
        await trio.sleep(10)
        return {"type": "http.request", "body": b"x", "more_body": len(states) < 3}

    async def send(message: Message) -> None:
        states.append(state())
        await trio.sleep(10)

    with table.counted(Socket()):
        assert state() == (0, 0)
        await Deadlines(app, table)(SCOPE, receive, send)
        assert state() == (0, 130)
    assert states == [(0, 0), (1, 0), (0, 10), (0, 120), (1, 120)]


async def test_a_request_of_a_connection_that_made_room_is_not_begun():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("begun")

    await Deadlines(app, ConnectionTable(1, Counter()))(SCOPE, sending([], ends=True), read)
