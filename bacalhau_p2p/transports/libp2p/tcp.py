"""TCP that takes what there is at once, and gives at once what the socket takes."""

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

RECEIVE_BUFFER: Final = 512 * 1024
"""Bytes taken from a socket at once at most."""

MAX_AHEAD: Final = 64 * 1024 + 2
"""Bytes that may be put ahead of what is received: an unfinished Noise message."""

_MAX_PARTS: Final = 512  # the kernel takes 1,024 in one call


class _Scratch(threading.local):
    """One receive buffer for all connections of a thread: a fresh one for each read costs 50 us."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(MAX_AHEAD + RECEIVE_BUFFER))


_scratch = _Scratch()


class LeanTCPStream(ReadWriteCloser):  # type: ignore[misc]
    """A TCP stream that is read in gulps and written without waiting.

    In stock each Yamux frame takes four system calls to receive, and each read and write a lock, which
    gives up the processor. One task may read, and one may `flush`, at a time.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._socket = stream.stream.socket
        self._unread = b""
        self._unsent: deque[memoryview] = deque()
        self.unsent_bytes = 0
        """Bytes handed over that the socket has not taken yet."""
        self.broken = False
        """A write failed: nothing goes out any more. Whoever reads hears of it from the socket."""

    async def receive(self, ahead: bytes = b"") -> memoryview:
        """What there is, at least one byte, behind the bytes `ahead` (at most MAX_AHEAD); empty at the end.

        The memory holds until the next await. Raises ConnectionClosedError after a reset.
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
                raise ConnectionClosedError(f"reset by the other end: {fault}", transport="tcp") from fault
            if not size:
                return memoryview(b"")
            memory[: len(ahead)] = ahead
            return memory[: len(ahead) + size]
        return memoryview(b"")

    def send_now(self, parts: Sequence[bytes]) -> None:
        """Hand over bytes: the socket takes what it can, the rest waits for `flush`, in order."""
        if self.broken:
            return
        self._unsent.extend(map(memoryview, parts))
        waited = self.unsent_bytes
        self.unsent_bytes += sum(map(len, parts))
        if not waited:
            self._push()

    async def flush(self) -> None:
        """Write what waits, until nothing does."""
        while self._unsent:
            if self._socket.fileno() == -1:
                self._give_up()
                return
            with suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_writable(self._socket)
            self._push()

    def _push(self) -> None:
        while self._unsent:
            try:
                sent = os.writev(self._socket.fileno(), list(islice(self._unsent, _MAX_PARTS)))
            except BlockingIOError:
                return
            except OSError:
                self._give_up()
                return
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
        """As of py-libp2p, for handshakes."""
        if n == 0:
            return b""
        if not self._unread:
            self._unread = bytes(await self.receive())
        end = len(self._unread) if n is None else n
        piece, self._unread = self._unread[:end], self._unread[end:]
        return piece

    async def write(self, data: bytes) -> None:
        """As of py-libp2p, for handshakes."""
        self.send_now([data])
        await self.flush()
        if self.broken and self._socket.fileno() != -1:
            raise ConnectionClosedError("reset by the other end", transport="tcp")

    async def close(self) -> None:
        await self._stream.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        address: tuple[str, int] | None = self._stream.get_remote_address()
        return address


class LeanTCP(TCP):  # type: ignore[misc]
    """py-libp2p's TCP transport with streams of ours; those of listeners are made by the swarm."""

    async def dial(self, maddr: Any) -> Any:
        raw_conn = await super().dial(maddr)
        raw_conn.stream = LeanTCPStream(raw_conn.stream)
        return raw_conn
