"""A neighbour: the stream to it, what waits for it, what it has, and what it has used of its limits."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

import trio

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.rate_limit import TokenBucket
from bacalhau_p2p.transports.libp2p.stream import Libp2pStream

OUTBOUND_QUEUE: Final = 4096
OUTBOUND_BYTES: Final = 16 * 1024 * 1024
"""Messages that wait for one neighbour, and their bytes; further ones are dropped and counted."""

WRITE_SIZE: Final = 65536
"""Bytes of waiting messages in one write, unless one alone is longer."""

WRITE_TIMEOUT: Final = 5.0
"""Seconds for a neighbour to accept a write. Then its stream is opened anew."""

MAX_ID_LENGTH: Final = 128
"""Bytes of the id of a message that is not here yet."""

MAX_UNWANTED: Final = 256
"""Ids of messages to come that one neighbour does not want (IDONTWANT)."""
UNWANTED_DURATION: Final = 3
"""Heartbeats for which they are remembered at least."""

FORGIVEN_AFTER: Final = 60
"""Heartbeats until half of its broken promises are forgiven."""

PARSING_SHARE: Final = 0.1
PARSING_BURST: Final = 0.5
"""Seconds of processor time a second, and at once, to parse what one neighbour sends and handle its control
messages. Who takes more is read later. Its broadcasts have a budget of their own."""


class Neighbour:
    """A connected peer that speaks gossipsub, or may.

    `may_send` says whether a message that waited is still to be sent. A neighbour with messages to flush adds
    itself to `unflushed`.
    """

    def __init__(
        self,
        peer: PeerID,
        counters: Counter[str],
        may_send: Callable[[Neighbour, bytes], bool],
        unflushed: list[Neighbour],
    ) -> None:
        self.peer = peer
        self.topics: set[str] = set()
        self.protocol = ""
        self.dialled = False
        self.early_grafts: dict[str, int | None] = {}
        """Topics that it grafted before it could be written to, and how many links it had."""
        self.choked: set[str] = set()
        """Topics of which it wants ids instead of messages."""
        self.used: Counter[str] = Counter()
        """What it has used of its limits since the last heartbeat, by the name of the limit."""
        self.parsing = TokenBucket(PARSING_SHARE, PARSING_BURST)
        self.promises = 0
        """Messages that it offered and is asked for."""
        self.broken_promises = 0
        self.written_to: Any = None  # the connection of our stream
        self.read_from: Any = None  # its newest stream to us
        self._counters = counters
        self._may_send = may_send
        self._unflushed = unflushed
        self._stream: Libp2pStream | None = None
        self._waiting: deque[tuple[bytes, bytes | None]] = deque()
        self._waiting_bytes = 0
        self._unsent = b""  # taken, and not written yet
        self._writing = False
        self._wake = trio.Event()
        self._unwanted: set[bytes] = set()
        self._unwanted_before: set[bytes] = set()
        self._beats = 0

    # --- what it has --------------------------------------------------------------------------

    def unwanted(self, message_id: bytes) -> bool:
        """Whether it said that it has this message."""
        return message_id in self._unwanted or message_id in self._unwanted_before

    def note_unwanted(self, message_id: bytes) -> None:
        """It has this message, or will."""
        if len(self._unwanted) < MAX_UNWANTED and len(message_id) <= MAX_ID_LENGTH:
            self._unwanted.add(message_id)

    def heartbeat(self) -> None:
        """A second has passed."""
        self.used.clear()
        self._beats += 1
        if self._beats % FORGIVEN_AFTER == 0:
            self.broken_promises //= 2
        if self._beats % UNWANTED_DURATION == 0 and (self._unwanted or self._unwanted_before):
            self._unwanted, self._unwanted_before = set(), self._unwanted

    # --- sending ------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return self._stream is not None

    @property
    def waiting(self) -> int:
        """How many messages wait for it."""
        return len(self._waiting)

    def opened(self, stream: Libp2pStream, muxed_conn: Any, protocol: str) -> None:
        """Write to this stream, of this connection, from now on."""
        self._stream = stream
        self.written_to = muxed_conn
        self.dialled = bool(muxed_conn.is_initiator)
        self.protocol = protocol

    def closed(self) -> None:
        """The stream is lost, with what waited for it."""
        self._stream = None
        self.written_to = None
        self._waiting.clear()
        self._waiting_bytes = 0
        self._unsent = b""
        self._writing = False
        self._wake.set()

    def put(self, frame: bytes, message_id: bytes | None = None) -> bool:
        """Send an encoded RPC with the next `flush`. False when too much waits already."""
        if self._stream is None:
            return False
        if len(self._waiting) >= OUTBOUND_QUEUE or self._waiting_bytes + len(frame) > OUTBOUND_BYTES:
            self._counters["broadcasts_unsent"] += 1
            return False
        if not self._waiting:
            self._unflushed.append(self)
        self._waiting.append((frame, message_id))
        self._waiting_bytes += len(frame)
        return True

    def flush(self) -> None:
        """Write what waits in one write, if that does not wait; otherwise `run` does."""
        if self._writing or self._stream is None or not self._waiting:
            return
        data = self._unsent or self._take()
        if data:
            self._unsent = b"" if self._write_now(data) else data
        if self._unsent or self._waiting:
            self._wake.set()

    async def run(self) -> None:
        """Write what `flush` leaves, until the stream is replaced or a write fails.

        After a failure part of a message may have been written, and the stream must be reset.
        """
        stream = self._stream
        while stream is not None and self._stream is stream:
            await self._wake.wait()
            if self._stream is not stream:
                return
            self._wake = trio.Event()
            self._writing = True
            try:
                while self._stream is stream and (data := self._unsent or self._take()):
                    self._unsent = b""
                    with trio.fail_after(WRITE_TIMEOUT):
                        await stream.send_all(data)
            except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
                return
            finally:
                if self._stream is stream:
                    self._writing = False

    def _write_now(self, data: bytes) -> bool:
        assert self._stream is not None
        try:
            return self._stream.send_now(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # `run` gets the same error

    def _take(self) -> bytes:
        """Join waiting messages up to WRITE_SIZE, without those that it has shown to have meanwhile."""
        taken: list[bytes] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0][0]) <= WRITE_SIZE):
            frame, message_id = self._waiting.popleft()
            self._waiting_bytes -= len(frame)
            if message_id is None or self._may_send(self, message_id):
                taken.append(frame)
                size += len(frame)
                self._counters["broadcasts_sent"] += message_id is not None
        return taken[0] if len(taken) == 1 else b"".join(taken)
