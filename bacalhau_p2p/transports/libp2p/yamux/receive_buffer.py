"""The received and unread bytes of a stream."""

from __future__ import annotations

from collections import deque
from typing import Final

_SMALL: Final = 4096
"""Bytes. Shorter pieces are joined, so that the buffer takes little more memory than its content."""


class ReceiveBuffer:
    """A queue of bytes. `append` keeps large pieces as they are; `take` joins what it returns."""

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray | memoryview] = deque()
        self._offset = 0  # bytes of the first piece that were taken
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, piece: bytes | memoryview) -> None:
        self._size += len(piece)
        if len(piece) >= _SMALL:
            # A view of a small part of an object keeps the whole object in memory.
            part = isinstance(piece, memoryview) and 2 * len(piece) < memoryview(piece.obj).nbytes
            self._pieces.append(bytes(piece) if part else piece)
        elif self._pieces and len(self._pieces[-1]) < _SMALL:
            last = self._pieces[-1]
            if not isinstance(last, bytearray):
                last = self._pieces[-1] = bytearray(last)
            last += piece
        elif piece:
            self._pieces.append(bytes(piece))  # a copy: a view would keep the whole object in memory

    def take(self, max_bytes: int) -> bytes:
        """Remove and return at most so many bytes."""
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
