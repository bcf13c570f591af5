"""The stream on which this node writes to a peer, and the frames that wait for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from bacalhau_p2p.runtime.events import AutoResetEvent

QUEUE_LIMIT: Final = 1024 * 1024
"""Bytes of frames that wait for one peer before `send` waits."""

WRITE_SIZE: Final = 256 * 1024
"""Bytes of waiting frames in one write, unless one frame alone is longer."""

BURST_INTERVAL: Final = 0.0002
"""Seconds after a write in which further frames are queued, to be written together."""


class DirectStream(Protocol):
    """A stream that can also be written without waiting."""

    async def send_all(self, data: bytes) -> None: ...

    def send_now(self, data: bytes) -> bool:
        """As `send_all`, if that does not wait; otherwise False, and nothing was sent.

        Raises trio.ClosedResourceError, trio.BrokenResourceError, trio.BusyResourceError.
        """
        ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes: ...

    async def aclose(self) -> None: ...


class OutboundLink:
    """Writes frames to one peer, in order: at once if possible, otherwise several in one write."""

    def __init__(self, stream: DirectStream) -> None:
        self.stream = stream
        self.closed = False
        self._written_at = 0.0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._wake = AutoResetEvent()
        self._space = trio.lowlevel.ParkingLot()

    async def put(self, frame: bytes) -> bool:
        """Queue a frame, and wait for space; False when the link closed meanwhile."""
        while not self.closed and self._waiting_bytes >= QUEUE_LIMIT:
            await self._space.park()
        if self.closed:
            return False
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        self._wake.set()
        return True

    def put_now(self, frames: Sequence[bytes]) -> bool:
        """Write frames at once, or queue them; False when there is no space."""
        if self.closed or self._waiting_bytes >= QUEUE_LIMIT:
            return False
        if not self._waiting_bytes and self._write_now(frames):
            return True
        self._waiting.extend(frames)
        self._waiting_bytes += sum(map(len, frames))
        self._wake.set()
        return True

    def _write_now(self, frames: Sequence[bytes]) -> bool:
        now = time.perf_counter()
        if now - self._written_at < BURST_INTERVAL:
            return False
        try:
            written = self.stream.send_now(b"".join(frames))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # `write_frames` gets the same error, and its caller counts the lost frames
        if written:
            self._written_at = now
        return written

    async def write_frames(self) -> None:
        """Write queued frames, as many as possible at once, until the link closes or its stream breaks."""
        while not self.closed:
            await self._wake.wait()
            while self._waiting:
                batch: list[bytes] = []
                size = 0
                for frame in self._waiting:
                    if batch and size + len(frame) > WRITE_SIZE:
                        break
                    batch.append(frame)
                    size += len(frame)
                await self.stream.send_all(b"".join(batch))
                if self.closed:
                    return
                for _ in batch:  # not before, so that frames of a failed write count as lost
                    self._waiting.popleft()
                self._waiting_bytes -= size
                self._space.unpark_all()

    async def wait_written(self) -> None:
        """Wait until all queued frames are written, or the link is closed."""
        while self._waiting_bytes and not self.closed:
            await self._space.park()

    def close(self) -> int:
        """Accept no more frames. Returns the number of frames that were not written."""
        self.closed = True
        lost = len(self._waiting)
        self._waiting.clear()
        self._wake.set()
        self._space.unpark_all()
        return lost
