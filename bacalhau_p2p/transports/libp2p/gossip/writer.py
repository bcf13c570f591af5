"""Writing gossip to neighbours: at once if possible, otherwise several messages in one write."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakKeyDictionary

import trio

from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.transports.libp2p.stream import Libp2pStream

WRITE_SIZE: Final = 65536
"""Bytes of waiting messages in one write, unless one alone is longer."""

WRITE_TIMEOUT: Final = 5.0
"""Seconds for a neighbour to accept a write; a slower one gets no more gossip, as in py-libp2p."""


def encode_rpc(rpc: Any) -> bytes:
    """A message with its length in front. One that is encoded already (bytes) stays as it is."""
    if isinstance(rpc, bytes):
        return rpc
    return encode_frame(rpc.SerializeToString())


class _Outbound:
    """The stream to a neighbour, and a lock for the tasks that write to it."""

    def __init__(self, net_stream: Any) -> None:
        self.stream = Libp2pStream(net_stream)
        self.lock = trio.Lock()


class GossipWriter:
    """Writes to the gossip streams of all neighbours, one task at a time on each.

    Two tasks that write large messages to one stream would garble both.
    """

    def __init__(self) -> None:
        self._outbound: WeakKeyDictionary[Any, _Outbound] = WeakKeyDictionary()

    def write_now(self, net_stream: Any, frame: bytes) -> bool:
        """Write a message if that does not wait; otherwise False, and nothing was written."""
        outbound = self._get(net_stream)
        if outbound.lock.locked():
            return False
        try:
            return outbound.stream.send_now(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # the task that writes gets the same error

    async def write(self, net_stream: Any, frames: bytes | bytearray) -> bool:
        """Write messages. False when the stream broke, or the neighbour accepted nothing within
        WRITE_TIMEOUT; then part of a message may have been written, and the stream must be reset."""
        outbound = self._get(net_stream)
        async with outbound.lock:
            try:
                with trio.fail_after(WRITE_TIMEOUT):
                    await outbound.stream.send_all(frames)
            except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
                return False
        return True

    async def write_queue(self, net_stream: Any, queue: Any) -> bool:
        """Write the messages of a queue until it is closed (True) or a write fails (False)."""
        while (item := await queue.pop()) is not None:
            joined = bytearray(encode_rpc(item))
            while len(joined) < WRITE_SIZE and len(queue):
                joined += encode_rpc(queue._queue.pop())
            if not await self.write(net_stream, joined):
                return False
        return True

    def _get(self, net_stream: Any) -> _Outbound:
        outbound = self._outbound.get(net_stream)
        if outbound is None:
            outbound = self._outbound[net_stream] = _Outbound(net_stream)
        return outbound
