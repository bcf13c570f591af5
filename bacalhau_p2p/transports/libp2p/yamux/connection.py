"""Yamux, lean: every frame of a read is dealt with at once, and a write is one call into the socket.

It takes the place of py-libp2p's, which awaits several times for each frame. Nothing here awaits
between two frames, so that no cancellation can leave half of one on the wire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from libp2p.abc import IMuxedConn
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.libp2p.noise import LeanSession
from bacalhau_p2p.transports.libp2p.yamux_frames import (
    ACK,
    DATA,
    FIN,
    FIRST_WINDOW,
    GO_AWAY,
    HEADER_SIZE,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Frame,
    FrameParser,
    encode_header,
)
from bacalhau_p2p.transports.libp2p.yamux_stream import MAX_BODY, LeanYamuxStream

WINDOW_BUDGET: Final = 16 * 1024 * 1024
"""Bytes by which the windows of all streams of a connection together may outgrow the first ones."""

MAX_INBOUND: Final = 256
"""Streams that the other end may have open; further ones are reset. The accept backlog of go-yamux."""

MAX_ANSWERS: Final = 64 * 1024
"""Bytes of answers (pongs, acknowledgements) that wait for a peer that does not read, before it is not
read from either."""

POLITE: Final = 0.5
"""Seconds for what was written to leave before the socket is closed."""

GO_AWAY_NORMAL: Final = 0
GO_AWAY_PROTOCOL_ERROR: Final = 1


class LeanYamux(IMuxedConn):  # type: ignore[misc]
    """A connection that carries streams; py-libp2p's swarm runs `start` and calls the rest.

    `secured_conn` is a `LeanSession`. A peer that breaks the rules loses this connection, and that is
    counted as `muxer_faults`.
    """

    def __init__(
        self, secured_conn: LeanSession, peer_id: ID, *, is_initiator: bool, counters: Counter[str]
    ) -> None:
        self.secured_conn = secured_conn
        self.peer_id = peer_id
        self.on_close: Callable[[], Awaitable[object]] | None = None
        self.event_started = trio.Event()
        self.event_shutting_down = trio.Event()
        self.event_closed = trio.Event()
        self.streams: dict[int, LeanYamuxStream] = {}
        self.window_budget = WINDOW_BUDGET
        self._tcp = secured_conn.tcp
        self._is_initiator = is_initiator
        self._next_id = 1 if is_initiator else 2
        self._inbound = 0
        self._counters = counters
        self._parser = FrameParser()
        self._answers: list[bytes] | None = None  # while frames of a read are dealt with
        self._unsent_answers = 0
        self._send_accepted, self._accepted = trio.open_memory_channel[LeanYamuxStream](MAX_INBOUND)
        self._backlogged = trio.Event()
        self._drained = trio.lowlevel.ParkingLot()
        self._heard_at = 0.0
        self._heard = trio.lowlevel.ParkingLot()
        self._ping_id = 0
        self._pinged_at = 0.0
        self._rtt = 0.0

    # --- what streams use ---------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Bytes that the socket has not taken yet; while there are any, streams do not write."""
        return self._tcp.unsent_bytes

    @property
    def broken(self) -> bool:
        return self._tcp.broken or self.event_shutting_down.is_set()

    def rtt(self) -> float:
        """Seconds that the last ping took there and back; 0 before the first."""
        return self._rtt

    def send_frame(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        """A frame without a payload; those that answer what one read brought go out together."""
        header = encode_header(kind, flags, stream_id, length)
        if self._answers is None:
            self._send(header)
        else:
            self._answers.append(header)

    def send_data(self, stream_id: int, view: memoryview) -> None:
        """Data frames, all in one write."""
        self._send(
            *(
                encode_header(DATA, 0, stream_id, len(piece)) + piece
                for piece in (view[start : start + MAX_BODY] for start in range(0, len(view), MAX_BODY))
            )
        )

    async def wait_drained(self) -> None:
        """Wait until the socket has taken everything, or never will."""
        while self.backlog and not self.event_shutting_down.is_set():
            await self._drained.park()

    def forget_if_done(self, stream: LeanYamuxStream) -> None:
        """Both directions ended: no frame of this stream means anything any more."""
        if not (stream.was_reset or (stream.fin_sent and stream.fin_received)):
            return
        if self.streams.pop(stream.stream_id, None) is not None:
            self._inbound -= not self._is_ours(stream.stream_id)
            self.window_budget += stream.window - FIRST_WINDOW
            stream.window = FIRST_WINDOW

    def _send(self, *plaintexts: bytes) -> None:
        if not self.event_shutting_down.is_set():
            self.secured_conn.send_now(*plaintexts)
            if self.backlog:
                self._backlogged.set()

    def _is_ours(self, stream_id: int) -> bool:
        return stream_id % 2 == self._is_initiator

    # --- the tasks ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Run until the connection ends, whoever ends it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._flush)
                self.event_started.set()
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._lose_streams()
            with trio.CancelScope(shield=True):
                await self.secured_conn.close()
        await self._end()

    async def _read(self) -> None:
        try:
            while not self.event_shutting_down.is_set():
                pieces = await self.secured_conn.receive()
                if not pieces:
                    return
                self._heard_at = trio.current_time()
                self._answers = []
                try:
                    going_on = self._deal_with(pieces)
                finally:
                    answers, self._answers = self._answers, None
                if answers:
                    self._send(b"".join(answers))
                if not going_on:
                    return
                await self._bound_answers(len(answers))
        except RemoteProtocolError:
            self._counters["muxer_faults"] += 1
            self.send_frame(GO_AWAY, 0, 0, GO_AWAY_PROTOCOL_ERROR)
        except (BaseLibp2pError, OSError):
            pass  # it was reset, or closed here

    async def _bound_answers(self, count: int) -> None:
        """Only answers hold reading up: two ends that wait with data until the other reads wait for ever."""
        if not self.backlog:
            self._unsent_answers = 0
            return
        self._unsent_answers += count * HEADER_SIZE
        if self._unsent_answers > MAX_ANSWERS:
            await self.wait_drained()
            self._unsent_answers = 0

    def _deal_with(self, pieces: list[bytes]) -> bool:
        """False when the other end said goodbye. Raises RemoteProtocolError."""
        for piece in pieces:
            for frame in self._parser.feed(piece):
                if frame.kind <= WINDOW_UPDATE:
                    self._stream_frame(frame)
                elif frame.kind == PING:
                    self._ping_frame(frame)
                elif frame.kind == GO_AWAY:
                    return False
        return True

    def _stream_frame(self, frame: Frame) -> None:
        stream = self.streams.get(frame.stream_id)
        if frame.flags & SYN:
            if stream is not None or self._is_ours(frame.stream_id) or not frame.stream_id:
                raise RemoteProtocolError(f"stream {frame.stream_id} cannot be opened")
            stream = self._inbound_stream(frame.stream_id)
        if stream is not None:  # others were reset here, and what was under way may still come
            stream.accept(frame)
            if frame.flags & (FIN | RST):
                self.forget_if_done(stream)

    def _inbound_stream(self, stream_id: int) -> LeanYamuxStream | None:
        if self._inbound >= MAX_INBOUND:
            self._counters["streams_refused"] += 1
            self.send_frame(WINDOW_UPDATE, RST, stream_id, 0)
            return None
        stream = LeanYamuxStream(stream_id, self)
        try:
            self._send_accepted.send_nowait(stream)
        except trio.WouldBlock:
            self._counters["streams_refused"] += 1
            self.send_frame(WINDOW_UPDATE, RST, stream_id, 0)
            return None
        self.streams[stream_id] = stream
        self._inbound += 1
        self.send_frame(WINDOW_UPDATE, ACK, stream_id, 0)
        return stream

    def _ping_frame(self, frame: Frame) -> None:
        if frame.flags & SYN:
            self.send_frame(PING, ACK, 0, frame.length)
        elif frame.length == self._ping_id:
            self._rtt = trio.current_time() - self._pinged_at
            self._heard.unpark_all()

    async def _flush(self) -> None:
        while True:
            await self._backlogged.wait()
            self._backlogged = trio.Event()
            await self._tcp.flush()
            self._drained.unpark_all()

    async def ping(self, timeout: float) -> bool:
        """Whether the other end gives a sign of life within so many seconds.

        Anything that it sends is one: an answer may queue behind much else on a slow line.
        """
        if self.event_shutting_down.is_set():
            return False
        self._ping_id = (self._ping_id + 1) % 2**32
        self._pinged_at = trio.current_time()
        self.send_frame(PING, SYN, 0, self._ping_id)
        for _ in range(2):  # our own process may have stood still as long, with the answer waiting
            with trio.move_on_after(timeout / 2):
                await self._heard.park()
            if self._heard_at >= self._pinged_at or self.event_shutting_down.is_set():
                break
        return self._heard_at >= self._pinged_at and not self.event_shutting_down.is_set()

    # --- its end ------------------------------------------------------------------------------

    async def close(self) -> None:
        """Say goodbye, after what was written if that leaves soon.

        The swarm must not be cancelled within this: it would never tell anybody of the end.
        """
        if not self.event_shutting_down.is_set():
            with trio.move_on_after(POLITE):
                await self.wait_drained()
            self.send_frame(GO_AWAY, 0, 0, GO_AWAY_NORMAL)
        await self._end()

    async def abort(self) -> None:
        """Close the socket, whatever waits for it."""
        await self._end()

    async def _end(self) -> None:
        self._lose_streams()
        await self.secured_conn.close()
        if not self.event_closed.is_set():
            self.event_closed.set()
            if self.on_close is not None:
                await self.on_close()

    def _lose_streams(self) -> None:
        self.event_shutting_down.set()
        self._send_accepted.close()
        for stream in list(self.streams.values()):
            stream.break_off()
        self.streams.clear()
        self._drained.unpark_all()
        self._heard.unpark_all()

    # --- as of py-libp2p ----------------------------------------------------------------------

    @property
    def is_initiator(self) -> bool:
        return self._is_initiator

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self.event_shutting_down.is_set()

    @property
    def is_closed(self) -> bool:
        return self.event_closed.is_set()

    async def open_stream(self) -> LeanYamuxStream:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise MuxedStreamError("the connection was lost")
        stream = self.streams[self._next_id] = LeanYamuxStream(self._next_id, self)
        self._next_id += 2
        self.send_frame(WINDOW_UPDATE, SYN, stream.stream_id, 0)
        return stream

    async def accept_stream(self) -> LeanYamuxStream:
        try:
            return await self._accepted.receive()
        except trio.EndOfChannel as end:
            raise MuxedConnUnavailable("the connection was lost") from end

    def get_transport_addresses(self) -> Any:
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> Any:
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        address: tuple[str, int] | None = self.secured_conn.get_remote_address()
        return address
