"""Servers on loopback that stand for servers of the public internet: the resolver and the last step of a
connection are the test's, and everything between them is the real thing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

from bacalhau_p2p.outbound.addresses import AddressGuard
from bacalhau_p2p.outbound.dialing import Dialer

PUBLIC = "93.184.216.34"
NAMES: Mapping[str, list[str]] = {
    "allowed.test": [PUBLIC],
    "www.allowed.test": [PUBLIC],
    "other.test": ["93.184.216.35"],
    "closed.test": ["93.184.216.36"],
    "private.test": ["10.0.0.5"],
    "local.test": ["127.0.0.1"],
    "metadata.test": ["169.254.169.254"],
    "shared.test": ["100.64.0.1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "half.test": [PUBLIC, "192.168.1.1"],
}
Handler = Callable[[trio.SocketStream], Awaitable[None]]


@dataclass(slots=True)
class PublicWeb:
    """What names resolve to, who answers at which address and port, and what was asked for."""

    names: dict[str, list[str]] = field(default_factory=lambda: {name: list(NAMES[name]) for name in NAMES})
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    resolved: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)

    def dialer(self) -> Dialer:
        return Dialer(AddressGuard(resolver=self._resolve), self._open)

    def _resolve(self, name: bytes, port: int) -> list[str]:
        self.resolved.append(name.decode())
        if name.decode() not in self.names:
            raise OSError("unknown name")
        return self.names[name.decode()]

    async def _open(self, address: str, port: int) -> trio.SocketStream:
        self.dialled.append((address, port))
        if (address, port) not in self.ports:
            raise ConnectionRefusedError(111, "Connection refused")
        return await trio.open_tcp_stream("127.0.0.1", self.ports[address, port])

    async def answer(self, stream: trio.SocketStream) -> None:
        """Plain HTTP: `/moved/HOST` redirects, `/big/N` has N bytes, and others say what they are."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := await stream.receive_some()):
                return
            data += bytes(more)
        head, _, body = data.partition(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                while len(body) < int(line.partition(b":")[2]):
                    body += bytes(await stream.receive_some())
        self.requests.append(head + b"\r\n\r\n" + body)
        path = head.split(b" ")[1].decode()
        if path.startswith("/moved/"):
            answer = f"HTTP/1.1 302 Found\r\nLocation: http://{path[7:]}/\r\nContent-Length: 0\r\n\r\n"
            await stream.send_all(answer.encode())
            return
        content = b"x" * int(path[5:]) if path.startswith("/big/") else b"this is " + path.encode() + b"\n"
        await stream.send_all(b"HTTP/1.1 200 OK\r\nX-Kept: yes\r\nConnection: X-Dropped\r\nX-Dropped: 1\r\n")
        await stream.send_all(b"Content-Length: %d\r\n\r\n" % len(content) + content)

    async def echo(self, stream: trio.SocketStream) -> None:
        """Whatever is no HTTP: all that comes in goes back, after a greeting."""
        await stream.send_all(b"echo\n")
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()


@asynccontextmanager
async def public_web() -> AsyncIterator[PublicWeb]:
    """A web in which two servers answer at the ports 80 (`answer`) and 443 (`echo`)."""
    web = PublicWeb()
    async with trio.open_nursery() as nursery:
        for address in (PUBLIC, "93.184.216.35"):
            for port, handler in ((80, web.answer), (443, web.echo)):
                listeners = await nursery.start(serve_quietly, handler)
                web.ports[address, port] = listeners[0].socket.getsockname()[1]
        yield web
        nursery.cancel_scope.cancel()


async def serve_quietly(handler: Handler, *, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, OSError):
            await handler(stream)

    await trio.serve_tcp(handle, 0, host="127.0.0.1", task_status=task_status)
