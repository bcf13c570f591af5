"""TCP with large reads, and writes that do not wait for the socket."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import trio
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.transport.tcp.tcp import TCP

from bacalhau_p2p.transports.interface import Traffic

RECEIVE_BUFFER: Final = 512 * 1024
"""Maximum bytes of one read."""

MAX_AHEAD: Final = 64 * 1024 + 2
"""Maximum bytes of an unfinished Noise message that a read is appended to."""

_MAX_PARTS: Final = 512  # parts of one write; the limit of the kernel is 1,024


class _Scratch(threading.local):
    """One receive buffer for all connections of a thread; a new one for each read would cost 50 us."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(MAX_AHEAD + RECEIVE_BUFFER))


_scratch = _Scratch()


class TCPStream(ReadWriteCloser):  # type: ignore[misc]
    """A TCP stream with large reads and writes that do not wait.

    py-libp2p's needs four system calls to receive a Yamux frame, and a lock and a switch of tasks for each
    read and write. One task may read, and one may `flush`, at a time.
    """

    def __init__(self, stream: Any, traffic: Traffic) -> None:
        """`traffic` counts the bytes."""
        self._stream = stream
        self._traffic = traffic
        self._socket = stream.stream.socket
        self._unread = b""
        self._unsent: deque[memoryview] = deque()
        self.unsent_bytes = 0
        """Bytes that the socket has not accepted yet."""
        self.broken = False
        """A write failed, and nothing more is sent. Readers get the error from the socket."""

    async def receive(self, ahead: bytes = b"") -> memoryview:
        """At least one byte, after the bytes `ahead` (at most MAX_AHEAD); empty at the end.

        The memory is valid until the next await. Raises ConnectionClosedError after a reset.
        """
        if self._unread:
            unread, self._unread = self._unread, b""
            return memoryview(ahead + unread)
        memory = _scratch.memory
        while self._socket.fileno() != -1:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                size = os.readv(self._socket.fileno(), [memory[len(ahead) : len(ahead) + RECEIVE_BUFFER]])
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                return memoryview(b"")
            except OSError as fault:
                raise ConnectionClosedError(f"connection reset: {fault}", transport="tcp") from fault
            if not size:
                return memoryview(b"")
            self._traffic.received += size
            memory[: len(ahead)] = ahead
            return memory[: len(ahead) + size]
        return memoryview(b"")

    def send_now(self, parts: Sequence[bytes]) -> None:
        """Write what the socket accepts now; the rest waits, in order, for `flush`."""
        if self.broken:
            return
        self._unsent.extend(map(memoryview, parts))
        waited = self.unsent_bytes
        self.unsent_bytes += sum(map(len, parts))
        if not waited:
            self._write_some()

    async def flush(self) -> None:
        """Write until nothing waits any more."""
        while self._unsent:
            if self._socket.fileno() == -1:
                self._give_up()
                return
            with suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_writable(self._socket)
            self._write_some()

    def _write_some(self) -> None:
        while self._unsent:
            try:
                sent = os.writev(self._socket.fileno(), list(islice(self._unsent, _MAX_PARTS)))
            except BlockingIOError:
                return
            except OSError:
                self._give_up()
                return
            self._traffic.sent += sent
            self.unsent_bytes -= sent
            while sent:
                first = self._unsent[0]
                if len(first) > sent:
                    self._unsent[0] = first[sent:]
                    return  # the socket is full
                sent -= len(first)
                self._unsent.popleft()

    def _give_up(self) -> None:
        self.broken = True
        self._unsent.clear()
        self.unsent_bytes = 0

    async def read(self, n: int | None = None) -> bytes:
        """py-libp2p's interface, for handshakes."""
        if n == 0:
            return b""
        if not self._unread:
            self._unread = bytes(await self.receive())
        end = len(self._unread) if n is None else n
        piece, self._unread = self._unread[:end], self._unread[end:]
        return piece

    async def write(self, data: bytes) -> None:
        """py-libp2p's interface, for handshakes."""
        self.send_now([data])
        await self.flush()
        if self.broken and self._socket.fileno() != -1:
            raise ConnectionClosedError("connection reset", transport="tcp")

    async def close(self) -> None:
        await self._stream.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        address: tuple[str, int] | None = self._stream.get_remote_address()
        return address


class TCPTransport(TCP):  # type: ignore[misc]
    """py-libp2p's TCP transport, dialling with `TCPStream`; GuardedSwarm makes those of listeners."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic

    async def dial(self, maddr: Any) -> Any:
        raw_conn = await super().dial(maddr)
        raw_conn.stream = TCPStream(raw_conn.stream, self._traffic)
        return raw_conn
