"""Lines of a response, as they arrive. Does no I/O.

A line ends with a newline and with nothing else. `str.splitlines`, and so httpx, also ends it at characters
that messages of strangers may contain, such as U+2028.
"""

from __future__ import annotations

from collections.abc import Iterator

from bacalhau_p2p.errors import ApiError

MAX_LINE = 4 * 1024 * 1024
"""Bytes of one line that a client takes: a piece of output has some 90 kB, an event some 10 kB."""


class LineReader:
    """Cuts what arrives into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes. Yields the lines that end in them, without their ends. Raises ApiError."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            yield bytes(self._rest + line).removesuffix(b"\r")
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > MAX_LINE:
            raise ApiError(f"the node sent a line of more than {MAX_LINE:,} bytes")
