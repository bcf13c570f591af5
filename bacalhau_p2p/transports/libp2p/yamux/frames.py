"""Yamux on the wire, without any waiting: frames cut out of a byte stream, and what streams received.

The format is that of https://github.com/hashicorp/yamux/blob/master/spec.md.
"""

from __future__ import annotations

import struct
from collections import deque
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
"""Bytes that each end may send on a new stream, as the specification has it."""

_HEADER: Final = struct.Struct("!BBHII")  # version, kind, flags, stream id, length
HEADER_SIZE: Final = _HEADER.size

_SMALL: Final = 4096
"""Bytes. Shorter pieces are joined, so that what waits takes little more memory than it is long."""


class Frame(NamedTuple):
    """A frame; or, of a data frame that comes in several reads, what one of them brought.

    The first piece carries SYN, ACK and the `length` of all of them, the last one FIN and RST.
    """

    kind: int
    flags: int
    stream_id: int
    length: int
    payload: bytes | memoryview = b""


def encode_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The 12 bytes before a frame's payload; most kinds have none."""
    return _HEADER.pack(0, kind, flags, stream_id, length)


class FrameParser:
    """Cuts a byte stream into frames, whatever the pieces in which it arrives."""

    def __init__(self) -> None:
        self._header = b""  # the beginning of one
        self._missing = 0  # bytes of the data frame under way
        self._stream_id = 0
        self._last_flags = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes bring. Raises RemoteProtocolError for what is no frame."""
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
                raise RemoteProtocolError(f"not a yamux frame: version {version}, type {kind}")
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


class ReceiveBuffer:
    """What a stream received and nobody has read yet, in the order in which it came."""

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray | memoryview] = deque()
        self._offset = 0  # bytes of the first piece that are read
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, piece: bytes | memoryview) -> None:
        self._size += len(piece)
        if len(piece) >= _SMALL:
            # A small part of what it came with would keep all of that.
            part = isinstance(piece, memoryview) and 2 * len(piece) < memoryview(piece.obj).nbytes
            self._pieces.append(bytes(piece) if part else piece)
        elif self._pieces and len(self._pieces[-1]) < _SMALL:
            last = self._pieces[-1]
            if not isinstance(last, bytearray):
                last = self._pieces[-1] = bytearray(last)
            last += piece
        elif piece:
            self._pieces.append(bytes(piece))  # lest it keep all that it came with

    def take(self, max_bytes: int) -> bytes:
        """At most so many bytes, no longer kept here."""
        taken: list[bytes | bytearray | memoryview] = []
        room = max_bytes
        while room and self._pieces:
            first = self._pieces[0]
            left = len(first) - self._offset
            if left > room:
                taken.append(memoryview(first)[self._offset : self._offset + room])
                self._offset += room
                room = 0
            else:
                taken.append(memoryview(first)[self._offset :] if self._offset else first)
                self._pieces.popleft()
                self._offset = 0
                room -= left
        self._size -= max_bytes - room
        if len(taken) == 1 and isinstance(taken[0], bytes):
            return taken[0]
        return b"".join(taken)

    def clear(self) -> None:
        self._pieces.clear()
        self._offset = self._size = 0
