"""Outbound broadcasts: messages that wait together travel as one."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress

import trio

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope
from bacalhau_p2p.bprotocol.messages import JobAnnounced, JobClosed, JobOutlined, SpecDelivered
from bacalhau_p2p.errors import MessageTooLarge
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.events import AutoResetEvent
from bacalhau_p2p.runtime.rate_limit import TokenBucket
from bacalhau_p2p.transports.interface import MAX_BROADCAST, Transport

BROADCAST_INTERVAL = 0.01
"""Minimum seconds between two broadcasts on a topic. Messages that wait meanwhile travel together. Stock
implementations of gossip, which may be on the way, lose messages beyond 50 to 200 a second."""
BROADCAST_BYTES = MAX_BROADCAST // 2
"""Maximum bytes of envelopes that travel together."""
MAIL_INTERVAL = 0.2
"""Minimum seconds between two broadcasts of mail, since every peer receives it."""
MAIL_FRAMES = 20
"""Maximum frames of one broadcast of mail."""
STRANGER_MAIL_PER_SECOND = 5
STRANGER_MAIL_BURST = 100
"""Frames for peers that have never answered this node, a second and at once. Anybody can invent such peers,
and every peer would receive what this node has to say to them."""
MAIL_LENGTH = 10_000
MAIL_BYTES = 32 * 1024 * 1024
"""Frames that wait to be mailed, and their bytes; beyond, the oldest are dropped and left to repetition."""


_NEVER_MAILED = frozenset(kind.kind for kind in (JobAnnounced, JobOutlined, JobClosed, SpecDelivered))
"""What everybody would receive though it is for few. The next round makes up for it."""


class BroadcastQueue:
    """The messages that wait to be broadcast on one topic. Call `run` in a nursery."""

    def __init__(self, transport: Transport, topic: str) -> None:
        self._transport = transport
        self._topic = topic
        self._waiting: deque[Envelope] = deque()
        self._wake = AutoResetEvent()

    def put(self, envelope: Envelope) -> None:
        """Broadcast this soon."""
        self._waiting.append(envelope)
        self._wake.set()

    async def run(self) -> None:
        """Broadcast until cancelled."""
        while True:
            await self._wake.wait()
            while self._waiting:
                await self._transport.broadcast(self._topic, self._take())
                await trio.sleep(BROADCAST_INTERVAL)

    def _take(self) -> bytes:
        """Encode as many waiting envelopes as fit into one broadcast."""
        waiting = self._waiting
        frames = [codec.encode_frame(waiting.popleft())]
        size = len(frames[0])
        while waiting and len(frames) < codec.MAX_BROADCAST_ENVELOPES:
            frame = codec.encode_frame(waiting[0])
            size += len(frame)
            if size > BROADCAST_BYTES:
                break
            frames.append(frame)
            waiting.popleft()
        return codec.join_frames(frames)


class Mail:
    """Frames for peers that no direct stream reaches: they are broadcast, and only the addressee reads them.

    Call `run` in a nursery. `counters["mailed"]` counts the frames.
    """

    def __init__(self, transport: Transport, topic: str, counters: Counter[str]) -> None:
        self._transport = transport
        self._topic = topic
        self._counters = counters
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._wake = AutoResetEvent()
        self._to_strangers = TokenBucket(STRANGER_MAIL_PER_SECOND, STRANGER_MAIL_BURST)

    def put(self, to: PeerID, frames: Iterable[bytes]) -> None:
        """Mail these frames soon. Those for a peer that was cut off, and too many for strangers, are left to
        repetition."""
        budgets = self._transport.budgets
        if budgets.is_cut_off(to):
            return
        known = budgets.has_answered(to)
        for frame in frames:
            if codec.kind_of(frame) in _NEVER_MAILED:
                self._counters["not_mailed"] += 1
                continue
            if not (known or self._to_strangers.take(trio.current_time())):
                self._counters["not_mailed"] += 1
                continue
            self._frames.append(frame)
            self._bytes += len(frame)
            while len(self._frames) > MAIL_LENGTH or self._bytes > MAIL_BYTES:
                self._bytes -= len(self._frames.popleft())
        self._wake.set()

    async def run(self) -> None:
        """Broadcast mail until cancelled."""
        while True:
            await self._wake.wait()
            while self._frames:
                frames = self._take()
                self._counters["mailed"] += len(frames)
                with suppress(MessageTooLarge):
                    await self._transport.broadcast(self._topic, codec.join_frames(frames))
                await trio.sleep(MAIL_INTERVAL)

    def _take(self) -> list[bytes]:
        frames = [self._frames.popleft()]
        size = len(frames[0])
        while self._frames and len(frames) < MAIL_FRAMES and size < BROADCAST_BYTES:
            frames.append(self._frames.popleft())
            size += len(frames[-1])
        self._bytes -= size
        return frames
