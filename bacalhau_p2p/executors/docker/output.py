"""The output of a container, live or from its log, with stdout and stderr told apart."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from docker import APIClient

STDOUT = 1
STDERR = 2

_HEADER = struct.Struct(">BxxxL")
_BUFFER = 256 * 1024
_LOG_ENTRY = 64
"""Bytes, at least what the engine's log takes for one entry beside its text."""


class Output(Protocol):
    """A container's output as it comes. Blocks: it belongs in a thread."""

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Pieces of output, each with STDOUT or STDERR, until the container ends or `hang_up`."""
        ...

    def hang_up(self) -> None:
        """End the iteration, which may be waiting in another thread."""
        ...

    def close(self) -> None:
        """Give the connection back, after the iteration has ended."""
        ...


class AttachedOutput:
    """All that a container writes from the moment of attaching.

    The SDK's own `attach(demux=True)` is not used: ending it from outside closes a socket on which
    another thread waits, and it asks the kernel four times for each frame.
    """

    def __init__(self, client: APIClient, container: str) -> None:
        """Attach. Raises what the SDK raises."""
        wanted = {"stdout": 1, "stderr": 1, "stream": 1}
        # For TLS the SDK gives the socket, else a file of it, which keeps the HTTP response alive.
        self._attached = client.attach_socket(container, wanted)
        self._socket = cast(socket.socket, getattr(self._attached, "_sock", self._attached))
        self._socket.settimeout(None)  # a job may be silent for hours

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        with self._socket.makefile("rb", _BUFFER) as frames, suppress(OSError):
            while len(header := frames.read(_HEADER.size)) == _HEADER.size:
                stream, size = _HEADER.unpack(header)
                # A size is what the engine read from the job at once, 32 KiB at most.
                yield stream, frames.read(size)

    def hang_up(self) -> None:
        with suppress(OSError):  # the engine may have closed its end first
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._attached.close()
            self._socket.close()


class LoggedOutput:
    """What the engine has kept of a container's output since its start, and then what it goes on to write.

    The SDK's own `logs` does not say which stream a piece is of.
    """

    def __init__(self, client: APIClient, container: str, *, follow: bool = True) -> None:
        """Raises what the SDK raises."""
        wanted = {"stdout": 1, "stderr": 1, "follow": int(follow), "tail": "all"}
        sdk = cast(Any, client)  # its own means for this are not in its types
        url = sdk._url("/containers/{0}/logs", container)
        self._response = sdk._get(url, params=wanted, stream=True)
        raw = sdk._get_raw_response_socket(self._response)
        self._socket = cast(socket.socket, getattr(raw, "_sock", raw))
        self._socket.settimeout(None)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        from urllib3.exceptions import HTTPError

        read = self._response.raw.read
        with suppress(OSError, HTTPError):
            while len(header := read(_HEADER.size)) == _HEADER.size:
                stream, size = _HEADER.unpack(header)
                yield stream, read(size)

    def hang_up(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._response.close()


def logged_since_start(client: APIClient, container: str, limit: int) -> bool:
    """Whether the engine still has the container's output from its first line on.

    `limit` is what it keeps in one file, in bytes, before it begins to drop the oldest.
    """
    output = LoggedOutput(client, container, follow=False)
    try:
        return sum(len(data) + _LOG_ENTRY for _, data in output) < limit
    finally:
        output.close()
