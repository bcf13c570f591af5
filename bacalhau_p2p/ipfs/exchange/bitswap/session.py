"""A session asks one peer for blocks and receives the answers."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from bacalhau_p2p.ipfs.exchange.bitswap.pending_wants import PendingWants
from bacalhau_p2p.ipfs.exchange.bitswap.streams import OutboundStream, OutboundStreams
from bacalhau_p2p.ipfs.exchange.bitswap.wire import Message, Want
from bacalhau_p2p.ipfs.exchange.faults import stream_faults
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID

CONNECTION_CHECK_INTERVAL = 1.0
"""Seconds between two checks whether a peer that sends nothing is still connected."""

Answer = tuple[CID, bytes | bool]
"""A block, or whether the peer has it."""


class Session:
    """The wants that one peer was sent, and its answers."""

    def __init__(
        self, peer: PeerID, stream: OutboundStream, pending: PendingWants, idle_timeout: float
    ) -> None:
        self._peer = peer
        self._stream = stream
        self._pending = pending
        self._idle_timeout = idle_timeout
        self._asked: list[CID] = []
        self._send, self._answers = trio.open_memory_channel[Answer](math.inf)  # bounded by what was asked
        self._on_answer = self._deliver

    def _deliver(self, cid: CID, answer: bytes | bool) -> None:
        self._send.send_nowait((cid, answer))

    async def ask(self, wants: Sequence[Want]) -> None:
        """Send wants; each will get one answer."""
        for want in wants:
            self._asked.append(want.cid.v1)
            self._pending.add(self._peer, want.cid.v1, self._on_answer)
        await self._stream.send(Message(wants=list(wants)))

    async def next_answer(self) -> Answer:
        """Raises trio.TooSlowError, and trio.BrokenResourceError when the connection was lost.

        Answers arrive on streams of the peer, so a lost connection shows only when our stream is checked.
        """
        with trio.fail_after(self._idle_timeout):
            while True:
                with trio.move_on_after(CONNECTION_CHECK_INTERVAL):
                    return await self._answers.receive()
                await self._stream.check_connected()

    def next_answer_nowait(self) -> Answer | None:
        """An answer that has arrived already."""
        try:
            return self._answers.receive_nowait()
        except trio.WouldBlock:
            return None

    def close(self) -> None:
        """Drop answers that are still to come."""
        self._pending.discard(self._peer, self._asked, self._on_answer)


class SessionOpener:
    """Opens sessions with peers."""

    def __init__(self, streams: OutboundStreams, pending: PendingWants, idle_timeout: float) -> None:
        self._streams = streams
        self._pending = pending
        self._idle_timeout = idle_timeout

    @asynccontextmanager
    async def open(self, peer: PeerID) -> AsyncIterator[Session]:
        """A session for the length of the block. Raises PeerFault, inside the block too."""
        with stream_faults(self._idle_timeout):
            async with self._streams.open(peer) as stream:
                session = Session(peer, stream, self._pending, self._idle_timeout)
                try:
                    yield session
                    await stream.end()
                finally:
                    session.close()
