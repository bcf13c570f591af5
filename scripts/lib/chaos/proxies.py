"""Links for users who may not create networks: every connection between two nodes goes through a proxy.

A node announces the address of its proxy. The node that dials is identified by the process at the other end
of the connection, so that two nodes can be separated from each other only.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import randint

import trio

from bacalhau_p2p.runtime.events import BroadcastEvent

GULP = 64 * 1024
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that resets the connection when it is closed."""
_ESTABLISHED = "01"


@dataclass(eq=False)
class _Connection:
    """One connection between two nodes, in two halves: to the proxy, and from it."""

    ends: tuple[int | None, int]
    """The node that dialled, None if it is unknown, and the node that listens."""
    halves: tuple[trio.SocketStream, trio.SocketStream]
    scope: trio.CancelScope


@dataclass
class Proxies:
    """Nodes on loopback, each behind a proxy. Open with `open_proxies`."""

    nursery: trio.Nursery
    cut_modes: Sequence[str] = ("silent", "reset")
    _host: str = field(default_factory=lambda: f"127.{randint(1, 250)}.{randint(0, 250)}.{randint(1, 250)}")
    """A loopback address that nothing else uses, so that a node that restarts finds its ports free."""
    _places: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Each node's API and swarm port."""
    _listeners: dict[int, trio.SocketListener] = field(default_factory=dict)
    _cuts: dict[int, str] = field(default_factory=dict)
    _pairs: dict[frozenset[int], str] = field(default_factory=dict)
    _changed: BroadcastEvent = field(default_factory=BroadcastEvent)
    _connections: set[_Connection] = field(default_factory=set)
    _process_of: dict[int, Callable[[], int | None]] = field(default_factory=dict)

    # --- as Links ---------------------------------------------------------------------------------

    def add_node(self, number: int) -> None:
        with socket.socket() as api, socket.socket() as swarm:
            api.bind((self._host, 0))
            swarm.bind((self._host, 0))
            self._places[number] = api.getsockname()[1], swarm.getsockname()[1]
        listening = socket.create_server((self._host, 0), backlog=128)
        listening.setblocking(False)
        self._listeners[number] = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        self.nursery.start_soon(self._serve, number)

    def command_prefix(self, number: int) -> Sequence[str]:
        return ()

    def listen_address(self, number: int) -> tuple[str, int, int]:
        return self._host, *self._places[number]

    def dial_address(self, number: int) -> tuple[str, int]:
        return self._host, self._listeners[number].socket.getsockname()[1]

    def set_process(self, number: int, process: Callable[[], int | None]) -> None:
        self._process_of[number] = process

    def cut(self, number: int, mode: str) -> None:
        self._cuts[number] = mode
        self._apply()

    def separate(self, first: int, second: int, mode: str) -> None:
        self._pairs[frozenset((first, second))] = mode
        self._apply()

    def heal(self, *numbers: int) -> None:
        for number in numbers:
            self._cuts.pop(number, None)
        self._pairs.pop(frozenset(numbers), None)
        self._apply()

    def unproxied_connections(self) -> list[str]:
        """Connections between nodes that no proxy carries. There must be none."""
        ours = {half.socket.getsockname()[1] for c in self._connections for half in c.halves}
        return [
            f"{source} to node {number}"
            for number, (_, swarm) in self._places.items()
            for source, target, _ in _connections()
            if target == swarm and source not in ours and self._owner(source, target) is not None
        ]

    # --- inside -----------------------------------------------------------------------------------

    def _apply(self) -> None:
        for connection in list(self._connections):
            if self._cut_mode(connection.ends) == "reset":
                _break(connection)
        self._changed.fire()

    def _cut_mode(self, ends: tuple[int | None, int]) -> str | None:
        """How these two are disconnected from each other; None if they are not."""
        cuts = [self._cuts[end] for end in ends if end is not None and end in self._cuts]
        pair = self._pairs.get(frozenset(end for end in ends if end is not None))
        return next(iter(cuts), pair)

    async def _serve(self, number: int) -> None:
        await trio.serve_listeners(
            lambda stream: self._carry(number, stream),
            [self._listeners[number]],
            handler_nursery=self.nursery,
        )

    async def _carry(self, number: int, inner: trio.SocketStream) -> None:
        """Carry one connection to this node until either side ends it."""
        source = inner.socket.getpeername()[1]
        ends = self._owner(source, inner.socket.getsockname()[1]), number
        if not await self._passage(ends):
            _reset(inner)
            return
        try:
            outer = await trio.open_tcp_stream(self._host, self._places[number][1])
        except OSError:  # the node is down
            _reset(inner)
            return
        with trio.CancelScope() as scope:
            connection = _Connection(ends, (inner, outer), scope)
            self._connections.add(connection)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, connection, inner, outer)
                    nursery.start_soon(self._pump, connection, outer, inner)
            finally:
                self._connections.discard(connection)
                inner.socket.close()
                outer.socket.close()

    async def _pump(
        self, connection: _Connection, source: trio.SocketStream, sink: trio.SocketStream
    ) -> None:
        try:
            while chunk := await source.receive_some(GULP):
                if not await self._passage(connection.ends):
                    break
                await sink.send_all(chunk)
            else:
                if await self._passage(connection.ends):
                    await sink.send_eof()
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if not await self._passage(connection.ends):  # nor does the end of a connection pass a cut link
                return
        _break(connection)

    async def _passage(self, ends: tuple[int | None, int]) -> bool:
        """Wait while the link is silent. Returns whether it works then, or else is to be reset."""
        while (mode := self._cut_mode(ends)) == "silent":
            await self._changed.wait()
        return mode is None

    def _owner(self, source: int, target: int) -> int | None:
        """The node whose process dialled from port `source` to port `target`; None if it is no node."""
        inode = next((inode for s, t, inode in _connections() if (s, t) == (source, target)), None)
        if inode is None:
            return None
        held = f"socket:[{inode}]"
        for number, process in self._process_of.items():
            if (pid := process()) is not None and held in _sockets(pid):
                return number
        return None


@asynccontextmanager
async def open_proxies() -> AsyncIterator[Proxies]:
    async with trio.open_nursery() as nursery:
        yield Proxies(nursery)
        nursery.cancel_scope.cancel()


def _break(connection: _Connection) -> None:
    for half in connection.halves:
        _reset(half)
    connection.scope.cancel()


def _reset(stream: trio.SocketStream) -> None:
    """Close so that the peer sees a reset."""
    with suppress(OSError):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.socket.close()


def _connections() -> list[tuple[int, int, str]]:
    """Established TCP connections over IPv4: both ports, and the inode of the socket at the first one."""
    found = []
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == _ESTABLISHED:
            found.append((int(words[1][-4:], 16), int(words[2][-4:], 16), words[9]))
    return found


def _sockets(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))  # noqa: PTH115
    return found
