"""Direct frames: one long-lived stream a pair of peers, frames read in gulps and joined on write.

Whoever has a frame first opens the stream; the other end writes on it too. When both open at once
there are two: each end keeps writing on the one that it took first and reads both, so that order
holds and nothing is lost. A frame is an unsigned varint length and that many bytes.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.errors import PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.interface import MAX_FRAME

QUEUE_LIMIT: Final = 1024 * 1024
"""Bytes of frames that wait for one peer before `send` waits."""

JOINED: Final = 256 * 1024
"""Bytes of waiting frames put into one write, unless one frame alone is longer."""

READ_SIZE: Final = 65536
"""Bytes asked for at once."""

BURST: Final = 0.0002
"""Seconds after a frame was written at once in which others wait for each other, to be written together."""

_MAX_HEADER: Final = 3  # bytes of the varint of MAX_FRAME


class FrameReader:
    """Cuts a byte stream into frames, whatever the pieces in which it arrives.

    `what` names such a frame in errors.
    """

    def __init__(self, what: str = "direct frame") -> None:
        self._what = what
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """The frames that are complete now. Raises RemoteProtocolError above MAX_FRAME."""
        self._buffer += data
        frames = []
        position = 0
        while (header := self._header(position)) is not None:
            start, length = header
            if len(self._buffer) < start + length:
                break
            frames.append(bytes(self._buffer[start : start + length]))
            position = start + length
        del self._buffer[:position]
        return frames

    def _header(self, position: int) -> tuple[int, int] | None:
        """Where the frame at `position` starts and how long it is, or None when that is still to come."""
        length = 0
        for index in range(_MAX_HEADER):
            if position + index >= len(self._buffer):
                return None
            byte = self._buffer[position + index]
            length |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if length > MAX_FRAME:
                    break
                return position + index + 1, length
        raise RemoteProtocolError(f"a {self._what} is longer than {MAX_FRAME} bytes")


class PromptStream(HalfCloseableStream):
    """A stream on which can be written without waiting, while there is room."""

    @abstractmethod
    def send_now(self, data: bytes) -> bool:
        """As `send_all`, if that needs no waiting; False otherwise, and then nothing was sent.

        Raises trio.ClosedResourceError, trio.BrokenResourceError, trio.BusyResourceError.
        """


class _Link:
    """The stream on which we write to a peer, and the frames that wait for it."""

    def __init__(self, stream: PromptStream) -> None:
        self.stream = stream
        self.closed = False
        self._written_at = 0.0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._frames = trio.Event()
        self._space = trio.lowlevel.ParkingLot()

    async def put(self, frame: bytes) -> bool:
        """Queue a frame; False when the link closed before there was space for it."""
        while not self.closed and self._waiting_bytes >= QUEUE_LIMIT:
            await self._space.park()
        if self.closed:
            return False
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        self._frames.set()
        return True

    def put_now(self, frames: Sequence[bytes]) -> bool:
        """Write frames at once, or queue them if there is space."""
        if self.closed or self._waiting_bytes >= QUEUE_LIMIT:
            return False
        if not self._waiting_bytes and self._write_now(frames):
            return True
        self._waiting.extend(frames)
        self._waiting_bytes += sum(map(len, frames))
        self._frames.set()
        return True

    def _write_now(self, frames: Sequence[bytes]) -> bool:
        now = time.perf_counter()
        if now - self._written_at < BURST:
            return False
        try:
            written = self.stream.send_now(b"".join(frames))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # the task that writes will find out, and count what is lost
        if written:
            self._written_at = now
        return written

    async def write_frames(self) -> None:
        """Write what waits, all of it at once, until the stream breaks or this is cancelled."""
        while not self.closed:
            await self._frames.wait()
            self._frames = trio.Event()
            while self._waiting:
                joined: list[bytes] = []
                size = 0
                for frame in self._waiting:
                    if joined and size + len(frame) > JOINED:
                        break
                    joined.append(frame)
                    size += len(frame)
                await self.stream.send_all(b"".join(joined))
                if self.closed:
                    return
                for _ in joined:  # only now, so that a write that fails counts them as lost
                    self._waiting.popleft()
                self._waiting_bytes -= size
                self._space.unpark_all()

    async def wait_written(self) -> None:
        """Wait until no frame waits any more."""
        while self._waiting_bytes and not self.closed:
            await self._space.park()

    def close(self) -> int:
        """Take no more frames; how many were not written."""
        self.closed = True
        lost = len(self._waiting)
        self._waiting.clear()
        self._frames.set()
        self._space.unpark_all()
        return lost


class _Opening:
    """An attempt to open a stream, which several senders may wait for."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.fault: PeerUnreachable | None = None


class DirectLinks:
    """All direct streams of a node.

    `open_stream` opens one to a peer (raising PeerUnreachable); `deliver` takes frames, and while it
    waits their sender is held back; `reading` wraps the reading of a stream to its end; `offence` is
    told of a peer that breaks the framing.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        open_stream: Callable[[PeerID], Awaitable[PromptStream]],
        deliver: Callable[[PeerID, list[bytes]], Awaitable[None]],
        reading: Callable[[PeerID], AbstractContextManager[None]],
        offence: Callable[[PeerID, str], None],
        counters: Counter[str],
    ) -> None:
        self._nursery = nursery
        self._open_stream = open_stream
        self._deliver = deliver
        self._reading = reading
        self._offence = offence
        self._counters = counters
        self._links: dict[PeerID, _Link] = {}
        self._openings: dict[PeerID, _Opening] = {}
        self._inbound: dict[PeerID, tuple[PromptStream, trio.Event]] = {}

    async def send(self, peer: PeerID, *payloads: bytes) -> None:
        """Queue frames (at most MAX_FRAME bytes each), opening a stream when there is none.

        Raises PeerUnreachable. Cancelled: the frames may still go.
        """
        await trio.lowlevel.checkpoint()
        if self.send_now(peer, *payloads):
            return
        # Without a pause between them while there is space, so that one write takes them all.
        for payload in payloads:
            frame = encode_frame(payload)
            while (link := self._links.get(peer)) is None or not await link.put(frame):
                if link is None:
                    await self._open(peer)

    def send_now(self, peer: PeerID, *payloads: bytes) -> bool:
        """Write or queue frames where a stream stands and has space; False otherwise."""
        link = self._links.get(peer)
        return link is not None and link.put_now([encode_frame(payload) for payload in payloads])

    async def flush(self) -> None:
        """Wait until every frame handed over has been written, or its stream is gone."""
        for link in list(self._links.values()):
            await link.wait_written()

    async def serve(self, peer: PeerID, stream: PromptStream) -> None:
        """Read a stream that the peer opened; a newer one of the same peer takes its place."""
        finished = trio.Event()
        predecessor = self._inbound.get(peer)
        self._inbound[peer] = stream, finished
        try:
            if predecessor is not None:
                await predecessor[0].aclose()
                await predecessor[1].wait()  # its frames come first
            await self._run(peer, stream)
        finally:
            finished.set()
            if self._inbound.get(peer, (None,))[0] is stream:
                del self._inbound[peer]

    async def _open(self, peer: PeerID) -> None:
        opening = self._openings.get(peer)
        if opening is None:
            opening = self._openings[peer] = _Opening()
            # In a task of its own: cancelling one sender must not cancel the stream of the others.
            self._nursery.start_soon(self._run_opened, peer, opening)
        await opening.done.wait()
        if opening.fault is not None:
            raise PeerUnreachable(str(opening.fault)) from opening.fault

    async def _run_opened(self, peer: PeerID, opening: _Opening) -> None:
        try:
            stream = await self._open_stream(peer)
            self._adopt(peer, stream)
        except PeerUnreachable as fault:
            opening.fault = fault
            return
        finally:
            del self._openings[peer]
            opening.done.set()
        await self._run(peer, stream)

    def _adopt(self, peer: PeerID, stream: PromptStream) -> None:
        """Write on this stream, unless another is in use already."""
        if peer not in self._links:
            self._links[peer] = link = _Link(stream)
            self._nursery.start_soon(self._write, peer, link)

    async def _write(self, peer: PeerID, link: _Link) -> None:
        try:
            await link.write_frames()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            self._leave(peer, link.stream)

    async def _run(self, peer: PeerID, stream: PromptStream) -> None:
        """Read a stream to its end, and write on it when there is none yet."""
        self._adopt(peer, stream)
        reader = FrameReader()
        try:
            with self._reading(peer):
                while data := await stream.receive_some(READ_SIZE):
                    if frames := reader.feed(data):
                        await self._deliver(peer, frames)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except RemoteProtocolError as fault:
            self._offence(peer, str(fault))
        finally:
            self._leave(peer, stream)
            await stream.aclose()

    def _leave(self, peer: PeerID, stream: PromptStream) -> None:
        link = self._links.get(peer)
        if link is not None and link.stream is stream:
            del self._links[peer]
            self._counters["frames_lost"] += link.close()
