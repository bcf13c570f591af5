"""Sends bytes in pieces, so that a slow peer is not mistaken for an idle one."""

from __future__ import annotations

import trio
from trio.abc import SendStream

MIN_PIECE, MAX_PIECE = 64 * 1024, 256 * 1024
"""Bytes that a peer must accept within the idle timeout."""
FAST_SECONDS = 1.0
"""A piece that is sent within this time doubles the next one, because each piece costs a scheduler step."""


class PacedSender:
    """The sending direction of one stream."""

    def __init__(self, stream: SendStream, idle_timeout: float) -> None:
        self._stream = stream
        self._idle_timeout = idle_timeout
        self._piece = MIN_PIECE

    async def send(self, data: bytes) -> None:
        """Raises trio.TooSlowError, and what the stream raises."""
        rest = memoryview(data)
        while rest:
            began = trio.current_time()
            with trio.fail_after(self._idle_timeout):
                await self._stream.send_all(rest[: self._piece])
            rest = rest[self._piece :]
            fast = trio.current_time() - began < FAST_SECONDS
            self._piece = min(2 * self._piece, MAX_PIECE) if fast else MIN_PIECE
