"""The sending half of a Yamux connection: frames go to the socket at once and wait only when it is full."""

from __future__ import annotations

from typing import Final

import trio

from bacalhau_p2p.runtime.events import AutoResetEvent
from bacalhau_p2p.transports.libp2p.noise import MAX_PLAINTEXT, NoiseSession
from bacalhau_p2p.transports.libp2p.yamux.frames import DATA, HEADER_SIZE, encode_header

MAX_BODY: Final = MAX_PLAINTEXT - HEADER_SIZE
"""Bytes of payload in one frame, so that a frame is one Noise message. Other implementations send as much."""

MAX_ANSWERS: Final = 64 * 1024
"""Bytes of answers (pongs, acknowledgements) that may wait for a peer that does not read them. Beyond,
nothing more is read from it."""


class FrameWriter:
    """Writes whole frames. No await separates the parts of a frame, so no cancellation can cut one."""

    def __init__(self, session: NoiseSession) -> None:
        self._session = session
        self._tcp = session.tcp
        self._answers: list[bytes] | None = None
        self._unsent_answers = 0  # bytes
        self._backlogged = AutoResetEvent()
        self._drained = trio.lowlevel.ParkingLot()
        self.closed = False

    @property
    def backlog(self) -> int:
        """Bytes that the socket has not accepted yet. While there are any, streams do not write."""
        return self._tcp.unsent_bytes

    @property
    def broken(self) -> bool:
        """Whether nothing more can be sent."""
        return self._tcp.broken or self.closed

    def send_frame(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        """Send a frame without a payload, or collect it between `begin_answers` and `send_answers`."""
        header = encode_header(kind, flags, stream_id, length)
        if self._answers is None:
            self._send(header)
        else:
            self._answers.append(header)

    def send_data(self, stream_id: int, view: memoryview) -> None:
        """Send data frames, all in one write."""
        if len(view) <= MAX_BODY:
            self._send(encode_header(DATA, 0, stream_id, len(view)) + view)
            return
        self._send(
            *(
                encode_header(DATA, 0, stream_id, len(piece)) + piece
                for piece in (view[start : start + MAX_BODY] for start in range(0, len(view), MAX_BODY))
            )
        )

    def begin_answers(self) -> None:
        """From now on collect frames without a payload: they answer what one read contained."""
        self._answers = []

    def send_answers(self) -> None:
        """Send the collected frames in one write."""
        answers, self._answers = self._answers, None
        if answers:
            self._send(b"".join(answers))
            self._unsent_answers += HEADER_SIZE * len(answers)

    def drop_answers(self) -> None:
        """Do not send the collected frames."""
        self._answers = None

    async def limit_answers(self) -> None:
        """Wait while more than MAX_ANSWERS bytes of answers wait for the socket.

        Data does not count: two peers that each wait with data until the other reads would wait for ever.
        """
        if not self.backlog:
            self._unsent_answers = 0
        elif self._unsent_answers > MAX_ANSWERS:
            await self.wait_drained()
            self._unsent_answers = 0

    async def wait_drained(self) -> None:
        """Wait until the socket has accepted everything, or the connection is closed."""
        while self.backlog and not self.closed:
            await self._drained.park()

    async def flush(self) -> None:
        """Give the socket what waits, until cancelled."""
        while True:
            await self._backlogged.wait()
            await self._tcp.flush()
            self._drained.unpark_all()

    def close(self) -> None:
        """Send nothing more."""
        self.closed = True
        self._drained.unpark_all()

    def _send(self, *plaintexts: bytes) -> None:
        if not self.closed:
            self._session.send_now(*plaintexts)
            if self._tcp.unsent_bytes:
                self._backlogged.set()
