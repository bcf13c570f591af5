"""Yamux frames: encoded, and parsed from a byte stream.

The format is specified at https://github.com/hashicorp/yamux/blob/master/spec.md.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from bacalhau_p2p.errors import RemoteProtocolError

DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3

SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

FIRST_WINDOW: Final = 256 * 1024
"""Bytes that each end may send on a new stream, as the specification says."""

_HEADER: Final = struct.Struct("!BBHII")  # version, kind, flags, stream id, length
HEADER_SIZE: Final = _HEADER.size


class Frame(NamedTuple):
    """A frame, or one piece of a data frame that arrives in several reads.

    The first piece carries SYN, ACK and the `length` of the whole frame, the last one FIN and RST.
    """

    kind: int
    flags: int
    stream_id: int
    length: int
    payload: bytes | memoryview = b""


def encode_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The 12 bytes before the payload of a frame. Only data frames have a payload."""
    return _HEADER.pack(0, kind, flags, stream_id, length)


class FrameParser:
    """Parses a byte stream into frames, however it is split into reads."""

    def __init__(self) -> None:
        self._header = b""  # an incomplete header
        self._missing = 0  # bytes of the current data frame that have not arrived
        self._stream_id = 0
        self._last_flags = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames in these bytes. Raises RemoteProtocolError when they are not Yamux."""
        frames: list[Frame] = []
        if self._header:
            data = self._header + data
            self._header = b""
        view = memoryview(data)
        position = min(self._missing, len(data))
        if position:
            self._missing -= position
            flags = 0 if self._missing else self._last_flags
            frames.append(Frame(DATA, flags, self._stream_id, 0, view[:position]))
        while len(data) - position >= HEADER_SIZE:
            version, kind, flags, stream_id, length = _HEADER.unpack_from(data, position)
            if version != 0 or kind > GO_AWAY:
                raise RemoteProtocolError(f"not a Yamux frame: version {version}, type {kind}")
            position += HEADER_SIZE
            if kind != DATA or not length:
                frames.append(Frame(kind, flags, stream_id, length))
                continue
            payload = view[position : position + length]
            position += len(payload)
            self._missing = length - len(payload)
            if self._missing:
                self._stream_id, self._last_flags = stream_id, flags & (FIN | RST)
                flags &= SYN | ACK
            frames.append(Frame(DATA, flags, stream_id, length, payload))
        self._header = data[position:]
        return frames
