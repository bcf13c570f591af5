"""What runs between two peers of a `MemoryNetwork`: letters that take their time, and byte streams."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.interface import Incoming

FRAMES_IN_FLIGHT = 64
"""Direct frames under way from one peer to another before `send` waits."""

WINDOW = 256 * 1024
"""Bytes that may wait in one direction before the writer is held back, as yamux's first window."""

Transit = Callable[[], float | None]
"""How long bytes written now are under way (seconds), or None while the link lets nothing through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConditions:
    """How one direction of a link treats messages. Probabilities are of each message for itself.

    `loss`, `repetition` (arrives twice), `reordering` (held back for up to `reorder_window` seconds
    while later ones pass) concern broadcasts and direct frames. `delay` and `jitter` (seconds; jitter
    is drawn evenly and added) concern streams too, which stay ordered and whole, as TCP's are.
    """

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    repetition: float = 0.0
    reordering: float = 0.0
    reorder_window: float = 0.1

    def __post_init__(self) -> None:
        for name in ("loss", "repetition", "reordering"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, not {getattr(self, name)}")
        for name in ("delay", "jitter", "reorder_window"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is in seconds, not {getattr(self, name)}")


class _Pipe:
    """One direction of a stream."""

    def __init__(self, transit: Transit) -> None:
        self._transit = transit
        self._chunks: deque[tuple[float, bytes]] = deque()  # when it can be read, and what
        self._waiting_bytes = 0
        self._eof_at: float | None = None
        self._last_due = 0.0
        self._moved = trio.lowlevel.ParkingLot()
        self.broken = False
        self.reader_closed = False

    def stir(self) -> None:
        """Let whoever waits look again."""
        self._moved.unpark_all()

    def break_(self) -> None:
        self.broken = True
        self._chunks.clear()
        self.stir()

    def close_reader(self) -> None:
        self.reader_closed = True
        self._chunks.clear()
        self.stir()

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        await trio.lowlevel.checkpoint()
        while view:
            self.check_writable()
            if self._waiting_bytes >= WINDOW:
                await self._moved.park()
                continue
            piece = bytes(view[: WINDOW - self._waiting_bytes])
            view = view[len(piece) :]
            self._waiting_bytes += len(piece)
            self._chunks.append((self._due(), piece))
            self.stir()
        self.check_writable()

    def write_eof(self) -> None:
        if self._eof_at is None and not self.broken:
            self._eof_at = self._due()
            self.stir()

    @property
    def ended(self) -> bool:
        return self._eof_at is not None

    async def read(self, limit: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.reader_closed:
                raise trio.ClosedResourceError("this stream was closed")
            if self.broken:
                raise trio.BrokenResourceError("the stream was reset or its connection was lost")
            due = self._chunks[0][0] if self._chunks else self._eof_at
            if due is None or self._transit() is None:
                await self._moved.park()
            elif due > trio.current_time():
                with trio.move_on_at(due):
                    await self._moved.park()
            else:
                return self._take(limit) if self._chunks else b""

    def _take(self, limit: int) -> bytes:
        due, piece = self._chunks.popleft()
        if len(piece) > limit:
            self._chunks.appendleft((due, piece[limit:]))
            piece = piece[:limit]
        self._waiting_bytes -= len(piece)
        self.stir()
        return piece

    def _due(self) -> float:
        # A link that is cut keeps what was written until it heals or the connection is given up.
        self._last_due = max(self._last_due, trio.current_time() + (self._transit() or 0.0))
        return self._last_due

    def check_writable(self) -> None:
        if self.broken or self.reader_closed:
            raise trio.BrokenResourceError("the stream was reset or its connection was lost")


class MemoryStream(HalfCloseableStream):
    """One end of a stream. `aclose` without `send_eof` resets it, as the transport interface says."""

    def __init__(self, outbound: _Pipe, inbound: _Pipe) -> None:
        self._outbound = outbound
        self._inbound = inbound
        self._closed = False
        self._busy: set[str] = set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._exclusively("send"):
            self._check_sendable()
            await self._outbound.write(data)

    async def wait_send_all_might_not_block(self) -> None:
        with self._exclusively("send"):
            self._check_sendable()
            await trio.lowlevel.checkpoint()
            self._outbound.check_writable()

    async def send_eof(self) -> None:
        with self._exclusively("send"):
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            await trio.lowlevel.checkpoint()
            if self._outbound.broken:
                raise trio.BrokenResourceError("the stream was reset or its connection was lost")
            self._outbound.write_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._exclusively("receive"):
            return await self._inbound.read(max_bytes or WINDOW)

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """What `aclose` does, at once."""
        if self._closed:
            return
        self._closed = True
        if not self._outbound.ended:
            self._outbound.break_()
        self._inbound.close_reader()

    @property
    def closed(self) -> bool:
        return self._closed

    def break_(self) -> None:
        """The connection is lost, for both ends."""
        self._outbound.break_()
        self._inbound.break_()

    def stir(self) -> None:
        """The link changed: whoever waits looks again."""
        self._outbound.stir()
        self._inbound.stir()

    def _check_sendable(self) -> None:
        if self._closed or self._outbound.ended:
            raise trio.ClosedResourceError("this stream was closed for sending")

    @contextmanager
    def _exclusively(self, what: str) -> Iterator[None]:
        if what in self._busy:
            raise trio.BusyResourceError(f"another task uses this stream to {what}")
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.discard(what)


def memory_stream_pair(forth: Transit, back: Transit) -> tuple[MemoryStream, MemoryStream]:
    """Both ends of one stream; `forth` and `back` tell how its link is in either direction."""
    there, here = _Pipe(forth), _Pipe(back)
    return MemoryStream(there, here), MemoryStream(here, there)


class Postbox:
    """Letters to one peer, each delivered when it is due: in the order of posting for every source,
    unless a letter is `overtaken`."""

    def __init__(self, deliver: Callable[[PeerID, Incoming], Awaitable[None]]) -> None:
        self._deliver = deliver
        self._letters: list[tuple[float, int, PeerID, Incoming]] = []
        self._sequence = itertools.count()
        self._last_due: dict[PeerID, float] = {}
        self._under_way: Counter[PeerID] = Counter()
        self._arrived = trio.lowlevel.ParkingLot()
        self._delivered = trio.lowlevel.ParkingLot()
        self._closed = False

    def post(self, source: PeerID, letter: Incoming, delay: float, *, overtaken: bool) -> None:
        """Deliver `letter` in `delay` seconds."""
        due = trio.current_time() + delay
        if not overtaken:
            due = self._last_due[source] = max(due, self._last_due.get(source, 0.0))
        heapq.heappush(self._letters, (due, next(self._sequence), source, letter))
        self._under_way[source] += 1
        self._arrived.unpark_all()

    async def wait_for_space(self, source: PeerID) -> None:
        """Wait until fewer than FRAMES_IN_FLIGHT letters of this source are under way.

        Raises PeerUnreachable when the owner of the box is gone.
        """
        while not self._closed and self._under_way[source] >= FRAMES_IN_FLIGHT:
            await self._delivered.park()
        if self._closed:
            raise PeerUnreachable("the peer left")

    def has_space(self, source: PeerID, letters: int) -> bool:
        """Whether so many more letters of this source may be under way."""
        return not self._closed and self._under_way[source] + letters <= FRAMES_IN_FLIGHT

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            if not self._letters:
                await self._arrived.park()
            elif self._letters[0][0] > trio.current_time():
                with trio.move_on_at(self._letters[0][0]):
                    await self._arrived.park()
            else:
                _, _, source, letter = heapq.heappop(self._letters)
                await self._deliver(source, letter)
                self._under_way[source] -= 1
                self._delivered.unpark_all()
                await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Nothing is delivered any more; whoever waits for space is told."""
        self._closed = True
        self._delivered.unpark_all()
