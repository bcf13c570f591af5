"""Direct frames: one long-lived stream per pair of peers.

The first side that has a frame opens the stream, and the other side writes on it too. When both open one at
the same time there are two: each side keeps writing on the one that it had first and reads both, so that
frames stay in order and none is lost. A frame is an unsigned varint length and that many bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Final

import trio

from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.libp2p.detached_calls import SharedCalls
from bacalhau_p2p.transports.libp2p.direct.frames import FrameReader
from bacalhau_p2p.transports.libp2p.direct.outbound_link import DirectStream, OutboundLink

READ_SIZE: Final = 65536
"""Bytes of one read."""


class DirectLinks:
    """All direct streams of a node.

    `open_stream` opens one to a peer (raising PeerUnreachable); `deliver` takes frames, and while it waits
    the sender waits too; `reading` wraps the reading of a stream to its end; `offence` records a peer that
    breaks the framing.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        open_stream: Callable[[PeerID], Awaitable[DirectStream]],
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
        self._links: dict[PeerID, OutboundLink] = {}
        self._openings = SharedCalls(nursery)
        self._inbound: dict[PeerID, tuple[DirectStream, trio.Event]] = {}

    async def send(self, peer: PeerID, *payloads: bytes) -> None:
        """Queue frames (at most MAX_FRAME bytes each), and open a stream when there is none.

        Raises PeerUnreachable. Cancelled: the frames may still be sent.
        """
        await trio.lowlevel.checkpoint()
        if self.send_now(peer, *payloads):
            return
        # No checkpoint between frames while there is space, so that one write takes them all.
        for payload in payloads:
            frame = encode_frame(payload)
            while (link := self._links.get(peer)) is None or not await link.put(frame):
                if link is None:
                    await self._openings.run(peer, self._open, peer)

    def send_now(self, peer: PeerID, *payloads: bytes) -> bool:
        """Write or queue frames if there is a stream with space; False otherwise."""
        link = self._links.get(peer)
        return link is not None and link.put_now([encode_frame(payload) for payload in payloads])

    async def flush(self) -> None:
        """Wait until every queued frame is written, or its stream is lost."""
        for link in list(self._links.values()):
            await link.wait_written()

    async def serve(self, peer: PeerID, stream: DirectStream) -> None:
        """Read a stream that the peer opened. It replaces an older one that the peer opened."""
        finished = trio.Event()
        predecessor = self._inbound.get(peer)
        self._inbound[peer] = stream, finished
        try:
            if predecessor is not None:
                await predecessor[0].aclose()
                await predecessor[1].wait()  # its frames come first
            await self._read(peer, stream)
        finally:
            finished.set()
            if self._inbound.get(peer, (None,))[0] is stream:
                del self._inbound[peer]

    async def _open(self, peer: PeerID) -> None:
        stream = await self._open_stream(peer)
        self._write_on(peer, stream)
        self._nursery.start_soon(self._read, peer, stream)

    def _write_on(self, peer: PeerID, stream: DirectStream) -> None:
        """Write to the peer on this stream, unless there is another one."""
        if peer not in self._links:
            self._links[peer] = link = OutboundLink(stream)
            self._nursery.start_soon(self._write, peer, link)

    async def _write(self, peer: PeerID, link: OutboundLink) -> None:
        try:
            await link.write_frames()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            self._stop_writing(peer, link.stream)

    async def _read(self, peer: PeerID, stream: DirectStream) -> None:
        """Read a stream to its end, and write on it unless there is another one."""
        self._write_on(peer, stream)
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
            self._stop_writing(peer, stream)
            await stream.aclose()

    def _stop_writing(self, peer: PeerID, stream: DirectStream) -> None:
        link = self._links.get(peer)
        if link is not None and link.stream is stream:
            del self._links[peer]
            self._counters["frames_lost"] += link.close()
