"""A Yamux connection: all frames of a read are handled together, and a write is one call into the socket.

It replaces py-libp2p's, which awaits several times for each frame.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from libp2p.abc import IMuxedConn
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.runtime.rate_limit import TokenBucket
from bacalhau_p2p.transports.libp2p.noise import NoiseSession
from bacalhau_p2p.transports.libp2p.yamux.frames import (
    ACK,
    FIN,
    FIRST_WINDOW,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Frame,
    FrameParser,
)
from bacalhau_p2p.transports.libp2p.yamux.pings import Pings
from bacalhau_p2p.transports.libp2p.yamux.stream import YamuxStream
from bacalhau_p2p.transports.libp2p.yamux.writer import FrameWriter

WINDOW_BUDGET: Final = 16 * 1024 * 1024
"""Bytes by which the windows of all streams of a connection together may grow beyond the first ones."""

MAX_INBOUND: Final = 256
"""Streams that the peer may have open; further ones are reset. As the accept backlog of go-yamux."""

IDLE_FRAMES_PER_SECOND: Final = 10_000
IDLE_FRAME_BURST: Final = 100_000
"""Frames, and messages of Noise, that bring nothing: for no stream, or with less than USEFUL_BYTES each. Who
sends more of them is read later. A transfer at 100 MB/s sends a thousand window updates a second."""
USEFUL_BYTES: Final = 256
"""Bytes for an open stream that pay for one frame."""

CLOSE_FLUSH_TIMEOUT: Final = 0.5
"""Seconds that `close` waits for the socket to accept what was written."""

GO_AWAY_NORMAL: Final = 0
GO_AWAY_PROTOCOL_ERROR: Final = 1


class YamuxConnection(IMuxedConn):  # type: ignore[misc]
    """A connection that carries streams. py-libp2p's swarm runs `start` and calls the other methods.

    A peer that breaks the protocol loses the connection. `offence` is called with what the peer did, as the
    name of a counter and in words: `muxer_faults`, `muxer_rests`, `streams_refused`.
    """

    def __init__(
        self,
        secured_conn: NoiseSession,
        peer_id: ID,
        *,
        is_initiator: bool,
        offence: Callable[[str, str], None],
    ) -> None:
        self.secured_conn = secured_conn
        self.peer_id = peer_id
        self.on_close: Callable[[], Awaitable[object]] | None = None
        self.event_started = trio.Event()
        self.event_shutting_down = trio.Event()
        self.event_closed = trio.Event()
        self.writer = FrameWriter(secured_conn)
        self.streams: dict[int, YamuxStream] = {}
        self.window_budget = WINDOW_BUDGET
        self._is_initiator = is_initiator
        self._next_id = 1 if is_initiator else 2
        self._inbound = 0
        self._offence = offence
        self._parser = FrameParser()
        self._pings = Pings(self.writer)
        self._idle_frames = TokenBucket(IDLE_FRAMES_PER_SECOND, IDLE_FRAME_BURST)
        self._send_accepted, self._accepted = trio.open_memory_channel[YamuxStream](MAX_INBOUND)

    # --- for streams --------------------------------------------------------------------------

    @property
    def round_trip(self) -> float:
        """Seconds that the last ping took; 0 before the first."""
        return self._pings.round_trip

    def forget_if_done(self, stream: YamuxStream) -> None:
        """Forget a stream once both directions have ended, since no frame of it means anything any more."""
        if not (stream.was_reset or (stream.fin_sent and stream.fin_received)):
            return
        if self.streams.pop(stream.stream_id, None) is not None:
            self._inbound -= not self._is_ours(stream.stream_id)
            self.window_budget += stream.window - FIRST_WINDOW
            stream.window = FIRST_WINDOW

    def _is_ours(self, stream_id: int) -> bool:
        return stream_id % 2 == self._is_initiator

    # --- reading ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Run until either side ends the connection."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.writer.flush)
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
                self._pings.received()
                self.writer.begin_answers()
                going_on = self._handle(pieces)
                self.writer.send_answers()
                if not going_on:
                    return
                await self.writer.limit_answers()
                if self._idle_frames.in_debt:
                    await self._rest()
        except RemoteProtocolError as fault:
            self._offence("muxer_faults", f"it broke the rules of Yamux: {fault}")
            self.writer.drop_answers()
            self.writer.send_frame(GO_AWAY, 0, 0, GO_AWAY_PROTOCOL_ERROR)
        except (BaseLibp2pError, OSError):
            pass  # reset by the peer, or closed by this node

    async def _rest(self) -> None:
        """Read on when the frames that brought nothing are paid off."""
        self._offence("muxer_rests", "its Yamux frames bring nothing")
        with trio.move_on_after(self._idle_frames.debt_lasts(trio.current_time())):
            await self.event_shutting_down.wait()

    def _handle(self, pieces: list[bytes]) -> bool:
        """False when the peer sent GO_AWAY. Raises RemoteProtocolError."""
        number = useful = 0
        for piece in pieces:
            frames = self._parser.feed(piece)
            number += len(frames)
            for frame in frames:
                if frame.kind <= WINDOW_UPDATE:
                    useful += self._handle_stream_frame(frame)
                elif frame.kind == PING:
                    self._pings.handle(frame)
                elif frame.kind == GO_AWAY:
                    return False
        idle = max(number, len(pieces)) - useful // USEFUL_BYTES
        if idle > 0:
            self._idle_frames.spend(trio.current_time(), idle)
        return True

    def _handle_stream_frame(self, frame: Frame) -> int:
        """How many bytes it brings a stream."""
        stream = self.streams.get(frame.stream_id)
        if frame.flags & SYN:
            if stream is not None or self._is_ours(frame.stream_id) or not frame.stream_id:
                raise RemoteProtocolError(f"the peer may not open stream {frame.stream_id}")
            stream = self._accept_inbound(frame.stream_id)
        if stream is None:  # frames that were in flight when their stream was reset are dropped
            return 0
        stream.accept(frame)
        if frame.flags & (FIN | RST):
            self.forget_if_done(stream)
        return len(frame.payload)

    def _accept_inbound(self, stream_id: int) -> YamuxStream | None:
        if self._inbound >= MAX_INBOUND:
            self._refuse_inbound(stream_id)
            return None
        stream = YamuxStream(stream_id, self)
        try:
            self._send_accepted.send_nowait(stream)
        except trio.WouldBlock:
            self._refuse_inbound(stream_id)
            return None
        self.streams[stream_id] = stream
        self._inbound += 1
        self.writer.send_frame(WINDOW_UPDATE, ACK, stream_id, 0)
        return stream

    def _refuse_inbound(self, stream_id: int) -> None:
        self._offence("streams_refused", "too many streams at the same time")
        self.writer.send_frame(WINDOW_UPDATE, RST, stream_id, 0)

    @property
    def heard_at(self) -> float:
        """When the peer sent anything last, by trio's clock."""
        return self._pings.received_at

    async def ping(self, timeout: float) -> bool:
        """Whether the peer sends anything within so many seconds."""
        return await self._pings.ping(timeout)

    # --- closing ------------------------------------------------------------------------------

    async def close(self) -> None:
        """Send GO_AWAY, after what was written if that leaves soon, and close the socket.

        The swarm must not be cancelled in here, or it would not notify anybody that the connection ended.
        """
        if not self.event_shutting_down.is_set():
            with trio.move_on_after(CLOSE_FLUSH_TIMEOUT):
                await self.writer.wait_drained()
            self.writer.send_frame(GO_AWAY, 0, 0, GO_AWAY_NORMAL)
        await self._end()

    async def abort(self) -> None:
        """Close the socket, whatever waits to be written."""
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
        self.writer.close()
        self._pings.close()
        for stream in list(self.streams.values()):
            stream.break_off()
        self.streams.clear()

    # --- py-libp2p's interface ----------------------------------------------------------------

    @property
    def is_initiator(self) -> bool:
        return self._is_initiator

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self.event_shutting_down.is_set()

    @property
    def is_closed(self) -> bool:
        return self.event_closed.is_set()

    async def open_stream(self) -> YamuxStream:
        await trio.lowlevel.checkpoint()
        if self.writer.broken:
            raise MuxedStreamError("the connection was lost")
        stream = self.streams[self._next_id] = YamuxStream(self._next_id, self)
        self._next_id += 2
        self.writer.send_frame(WINDOW_UPDATE, SYN, stream.stream_id, 0)
        return stream

    async def accept_stream(self) -> YamuxStream:
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
