"""Outbound frames: a queue for each peer, so that a peer that cannot be reached delays no other."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio
from trio import TaskStatus

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.events import AutoResetEvent
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.transports.interface import Transport

log = get_logger(__name__)

LANE_IDLE_TIMEOUT = 30.0
"""Seconds after which the writer task of an idle lane ends."""
LANE_LENGTH = 10_000
LANE_BYTES = 16 * 1024 * 1024
"""Frames that wait for one peer, and their bytes; beyond, the oldest are dropped and left to repetition."""


@dataclass(slots=True)
class _Lane:
    """The frames that wait for one peer."""

    frames: deque[bytes] = field(default_factory=deque)
    size: int = 0
    """Bytes of these frames."""
    wake: AutoResetEvent = field(default_factory=AutoResetEvent)
    busy: bool = False
    """Whether the transport is sending frames, which may wait."""

    def append(self, frame: bytes) -> None:
        """Let a frame wait. The oldest are dropped when there are too many."""
        self.frames.append(frame)
        self.size += len(frame)
        while len(self.frames) > LANE_LENGTH or self.size > LANE_BYTES:
            self.size -= len(self.frames.popleft())

    def take_all(self) -> list[bytes]:
        frames = list(self.frames)
        self.frames.clear()
        self.size = 0
        return frames


class Lanes:
    """The lanes of one node. Call `run` in a nursery; `put` returns at once.

    `with_acks(peer, frames)` returns the frames together with the acknowledgements that wait for the peer;
    `unreachable(peer, frames)` takes those that no direct stream could carry.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        with_acks: Callable[[PeerID, Sequence[bytes]], list[bytes]],
        unreachable: Callable[[PeerID, list[bytes]], None],
        counters: Counter[str],
    ) -> None:
        self._transport = transport
        self._with_acks = with_acks
        self._unreachable = unreachable
        self._counters = counters
        self._lanes: dict[PeerID, _Lane] = {}
        self._nursery: trio.Nursery | None = None
        self._gathered: dict[PeerID, list[bytes]] | None = None
        """Frames that wait for `release`; None when each is sent at once."""

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write frames until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def put(self, peer: PeerID, frame: bytes | None) -> None:
        """Send a frame, or with None only the acknowledgements that wait for the peer.

        Dropped unless `run` runs: repetition, or the next start of the node, sends the frame again.
        """
        frames = [] if frame is None else [frame]
        if self._gathered is None:
            self._put(peer, frames)
        else:
            self._gathered.setdefault(peer, []).extend(frames)

    def gather(self) -> None:
        """Let frames wait for `release`, so that those to one peer are sent together."""
        self._gathered = {}

    def release(self) -> None:
        """Send what was gathered, and from now on each frame at once."""
        gathered, self._gathered = self._gathered or {}, None
        for peer, frames in gathered.items():
            self._put(peer, frames)

    def _put(self, peer: PeerID, frames: list[bytes]) -> None:
        if self._nursery is None:
            return
        lane = self._lanes.get(peer)
        if lane is None or not (lane.busy or lane.frames):
            frames = self._with_acks(peer, frames)
            if not frames or self._transport.send_now(peer, *frames):
                return
        if lane is None:
            lane = self._lanes[peer] = _Lane()
            self._nursery.start_soon(self._write, peer, lane)
        for waiting in frames:
            lane.append(waiting)
        lane.wake.set()

    async def _write(self, peer: PeerID, lane: _Lane) -> None:
        while True:
            with trio.move_on_after(LANE_IDLE_TIMEOUT) as idle:
                await lane.wake.wait()
            if idle.cancelled_caught:
                if lane.wake.is_set():
                    continue
                del self._lanes[peer]
                return
            frames = self._with_acks(peer, ())
            lane.busy = True
            try:
                while frames := [*frames, *lane.take_all()]:
                    await self._transport.send(peer, *frames)
                    frames = []
            except PeerUnreachable as error:
                self._counters["unreachable"] += 1
                self._unreachable(peer, [*frames, *lane.take_all()])
                log.debug("peer_unreachable", peer=peer, reason=str(error))
            finally:
                lane.busy = False
