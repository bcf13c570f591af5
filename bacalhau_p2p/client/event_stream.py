"""Server-sent events, line by line. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from bacalhau_p2p.errors import ApiError

_T = TypeVar("_T")

MAX_EVENT = 1024 * 1024
"""Bytes of one event that a client takes."""


class EventStreamReader(Generic[_T]):
    """Reads a stream of events whose data is JSON; ids and names of events are not needed."""

    def __init__(self, read: Callable[[bytes], _T]) -> None:
        """`read` turns the data of an event into a value."""
        self._read = read
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, line: bytes) -> Iterator[_T]:
        """Take the next line, without its end. Yields the event that it ends, if it ends one.

        Raises ApiError for an event that is too large, and what `read` raises.
        """
        if line.startswith(b"data:"):
            text = line[len(b"data:") :].removeprefix(b" ")
            self._size += len(text) + 1  # a line without text takes memory, too
            if self._size > MAX_EVENT:
                raise ApiError(f"the node sent an event of more than {MAX_EVENT:,} bytes")
            self._data.append(text)
        elif not line and self._data:
            data, self._data, self._size = b"\n".join(self._data), [], 0
            yield self._read(data)
