"""Frames of a length-prefixed byte stream, as direct streams and gossip use them."""

from __future__ import annotations

from typing import Final

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.interface import MAX_FRAME

_MAX_HEADER: Final = 3  # bytes of the varint of MAX_FRAME


class FrameReader:
    """Splits a byte stream into frames, however it is split into reads. `kind` names a frame in errors.

    `encoding.framing` takes one frame off a buffer. This takes all frames of a large read, and rejects a
    length above MAX_FRAME after three bytes.
    """

    def __init__(self, kind: str = "direct frame") -> None:
        self._kind = kind
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
        """Start and length of the frame at `position`, or None while its header is incomplete."""
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
        raise RemoteProtocolError(f"a {self._kind} is longer than {MAX_FRAME} bytes")
