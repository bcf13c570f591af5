"""One HTTP connection, as hypercorn serves it with fewer steps of the scheduler.

hypercorn makes a task for each request that watches for an idle connection, gives up the processor for each
of the three pieces of a response, and sends them one by one: half of what a small response takes. It lets
these parts be replaced; those here do the same with less.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.tasks import background

log = get_logger(__name__)

READ_SIZE = 64 * 1024
"""Bytes of a request that are read at once."""
SMALL = 16 * 1024
"""Bytes that are written without giving way to other tasks, if the socket accepts them."""


class TimedStream:
    """A TCP stream whose peer must take what is sent in time. hypercorn shields its sending."""

    def __init__(self, stream: trio.SocketStream, *, grace: float, min_rate: float) -> None:
        self.socket = stream.socket
        self.at_end: Callable[[], None] = lambda: None
        """Called when nothing more will be received."""
        self._stream = stream
        self._grace = grace
        self._min_rate = min_rate
        self._lock = trio.Lock()
        self._held: list[bytes] | None = None

    async def receive_some(self, most: int) -> bytes | bytearray:
        data: bytes | bytearray = b""
        try:
            data = await self._stream.receive_some(most)
        finally:
            if not data:
                self.at_end()
        return data

    async def send_all(self, data: bytes) -> None:
        """Raises trio.BrokenResourceError, also when the peer does not read."""
        if self._held is not None:
            self._held.append(data)
            return
        if len(data) <= SMALL and not self._lock.locked():
            data = data[self._write(data) :]
        if data:
            with trio.CancelScope(shield=True):  # a response that is cut short would be followed by others
                async with self._lock:
                    await self._send(data)

    def hold(self) -> None:
        """Keep what is sent until `release`."""
        self._held = self._held or []

    async def release(self) -> None:
        """Send at once what was held. Raises trio.BrokenResourceError."""
        held, self._held = self._held, None
        if held:
            await self.send_all(held[0] if len(held) == 1 else b"".join(held))

    async def send_eof(self) -> None:
        await self.release()
        await self._stream.send_eof()

    async def aclose(self) -> None:
        try:
            await self.release()
        finally:
            await self._stream.aclose()

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self.socket.fileno(), data) if data else 0
        except OSError:  # full, broken or closed: sending as usual says which
            return 0

    async def _send(self, data: bytes) -> None:
        with trio.move_on_after(self._grace + len(data) / self._min_rate) as sending:
            await self._stream.send_all(data)
        if sending.cancelled_caught:
            self.socket.close()
            raise trio.BrokenResourceError("the client does not read the response")


class IdleWatch(TrioSingleTask):
    """Closes a connection that is idle too long, or when the server ends. One task for all requests.

    hypercorn calls `restart` when the connection becomes idle, and `stop` when a request begins.
    """

    def __init__(self, timeout: float, terminated: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._timeout = timeout
        self._terminated = terminated
        self._idle_since: float | None = None
        self._scope = trio.CancelScope()
        self._watching = False
        self._ended = False

    async def restart(self, task_group: Any, action: Callable[[], Awaitable[None]]) -> None:
        """Call `action` when the connection stays idle."""
        self._idle_since = trio.current_time()
        if not (self._watching or self._ended):
            self._watching = True
            task_group.spawn(self._watch, action)

    async def stop(self) -> None:
        self._idle_since = None

    def end(self) -> None:
        """No more requests will come."""
        self._ended = True
        self._scope.cancel()

    async def _watch(self, action: Callable[[], Awaitable[None]]) -> None:
        while not self._ended:
            now = trio.current_time()
            due = (now if self._idle_since is None else self._idle_since) + self._timeout
            if due <= now:
                break
            with trio.move_on_at(due) as self._scope:
                await self._terminated()
                break
        self._watching = False
        if self._idle_since is not None and not self._ended:
            await action()


class _Server(TCPServer):
    """hypercorn's, without a lock and two scopes for each piece that is sent or received: `TimedStream` takes
    care of that where it waits."""

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            await self.stream.send_all(event.data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        data: bytes | bytearray = b"first"
        while data:
            try:
                data = await self.stream.receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
            await self.protocol.handle(RawData(bytes(data)))
        await self.protocol.handle(Closed())


class _Exchange:
    """One request and its response. The head of a response goes out with the first part of its body."""

    def __init__(self, receive: Receive, send: Send, stream: TimedStream, *, body: bool) -> None:
        """`body`: whether the request may have one."""
        self._receive = receive
        self._send = send
        self._stream = stream
        self._head: Message | None = None
        self._body_expected = body
        self.complete = False
        """Whether the application has sent the whole response."""

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self._body_expected = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True
        if message["type"] == "http.response.start" and _has_length(message):
            self._head = message  # the body follows at once: how long it is is known
            return
        if self._body_expected and message["type"] == "http.response.body":
            await self._send_together({**message, "more_body": True})
            if not message.get("more_body", False):
                await self._end_early()
            return
        await self._send_together(message)

    async def _end_early(self) -> None:
        """End the response before the request, which closes the connection.

        hypercorn queues the body of the request, and does not close the connection while that queue is full.
        """
        async with background() as nursery:
            nursery.start_soon(self._drop_body)
            await self._send_together({"type": "http.response.body"})

    async def _drop_body(self) -> None:
        while self._body_expected:
            await self.receive()

    async def _send_together(self, message: Message) -> None:
        self._stream.hold()
        try:
            if self._head is not None:
                head, self._head = self._head, None
                await self._send(head)
            await self._send(message)
        finally:
            await self._release()

    async def _release(self) -> None:
        try:
            await self._stream.release()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._stream.socket.close()  # who reads from it learns that it is broken


def _has_length(head: Message) -> bool:
    return any(name == b"content-length" for name, _ in head["headers"])


async def serve_http(
    app: ASGIApp,
    config: Config,
    context: WorkerContext,
    idle_timeout: float,
    state: ConnectionState,
    stream: TimedStream,
) -> None:
    """Speak HTTP on one connection until it is closed. `config` has a `keep_alive_timeout` of 0, since the
    time is watched here."""

    async def call(scope: Scope, receive: Receive, send: Send, *_: object) -> None:
        exchange = None
        if scope["type"] == "http" and scope["http_version"] != "2":
            exchange = _Exchange(receive, send, stream, body=scope["method"] not in ("GET", "HEAD"))
            receive, send = exchange.receive, exchange.send
        try:
            await app(scope, receive, send)
        except Exception as error:  # hypercorn keeps it to itself
            if exchange is None or not exchange.complete:  # or the application has logged it
                log.error("response_failed", path=scope.get("path", ""), exc_info=error)
            raise

    server = _Server(cast(Any, call), config, context, state, cast(Any, stream))
    watch = IdleWatch(idle_timeout, context.terminated.wait)
    server.idle_task = watch
    stream.at_end = watch.end
    await server
