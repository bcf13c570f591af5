"""What a job's proxy carries: counted, limited, and at an end when nothing moves any more."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import h11
import trio

from bacalhau_p2p.model.quantities import format_bytes

MAX_TRAFFIC = 16 * 1000**3
"""Bytes of one run through its proxy, in and out together."""
IDLE_TIMEOUT = 300.0
"""Seconds without a byte to or from a server after which a connection is closed."""
MAX_REFUSED_HOSTS = 16
"""Hosts that a job was refused, as far as they are remembered for its hint."""
CHUNK = 64 * 1024
"""Bytes that are read at a time."""


class TrafficExhausted(Exception):
    """The job has used up what it may send and receive."""


ENDINGS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError, TrafficExhausted)
"""What either side can do to end its connection, and nothing else."""


@dataclass(slots=True)
class Traffic:
    """What one job's proxy has done so far."""

    limit: int = MAX_TRAFFIC
    received: int = 0
    """Bytes from servers."""
    sent: int = 0
    """Bytes to servers."""
    refused: Counter[str] = field(default_factory=Counter)
    """Hosts that were asked for and refused, with how often: the first MAX_REFUSED_HOSTS."""

    def check(self) -> None:
        """Raises TrafficExhausted."""
        if self.received + self.sent > self.limit:
            raise TrafficExhausted(f"this job has used up the {format_bytes(self.limit)} of its network")

    def refuse(self, host: str) -> None:
        """Remember that a host was refused."""
        if host in self.refused or len(self.refused) < MAX_REFUSED_HOSTS:
            self.refused[host] += 1


class MeteredStream:
    """A connection to a server, whose bytes are counted. Any byte puts off the end of `scope`."""

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, traffic: Traffic, scope: trio.CancelScope, idle: float
    ) -> None:
        self._stream = stream
        self._traffic = traffic
        self._scope = scope
        self._idle = idle

    async def receive_some(self) -> bytes:
        """As of trio's streams. Raises TrafficExhausted."""
        data = bytes(await self._stream.receive_some(CHUNK))
        self._traffic.received += len(data)
        self._moved()
        return data

    async def send_all(self, data: bytes) -> None:
        """As of trio's streams. Raises TrafficExhausted."""
        self._traffic.sent += len(data)
        self._moved()
        await self._stream.send_all(data)
        self._moved()

    async def send_eof(self) -> None:
        """As of trio's streams."""
        await self._stream.send_eof()

    def _moved(self) -> None:
        self._traffic.check()
        self._scope.deadline = trio.current_time() + self._idle
