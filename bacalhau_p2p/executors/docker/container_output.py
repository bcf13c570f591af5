"""The output of a container, live or from its log, with stdout and stderr kept apart."""

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
_BUFFER_SIZE = 256 * 1024
_LOG_ENTRY_SIZE = 64
"""Bytes that an entry of the engine's log takes besides its text, at least."""


class Output(Protocol):
    """A container's output as it comes. Blocks: for worker threads."""

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Pieces of output, each with STDOUT or STDERR, until the container ends or `interrupt`."""
        ...

    def interrupt(self) -> None:
        """End the iteration, which may be blocked in another thread."""
        ...

    def close(self) -> None:
        """Close the connection, after the iteration has ended."""
        ...


class AttachedOutput:
    """All that a container writes from the moment of attaching.

    Not the SDK's `attach(demux=True)`: ending that from outside closes a socket on which another thread
    waits, and it makes four system calls for each frame.
    """

    def __init__(self, client: APIClient, container: str) -> None:
        """Attach. Raises what the SDK raises."""
        wanted = {"stdout": 1, "stderr": 1, "stream": 1}
        # With TLS the SDK returns the socket, else a file of it, which keeps the HTTP response alive.
        self._attached = client.attach_socket(container, wanted)
        self._socket = cast(socket.socket, getattr(self._attached, "_sock", self._attached))
        self._socket.settimeout(None)  # a job may be silent for hours

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        with self._socket.makefile("rb", _BUFFER_SIZE) as frames, suppress(OSError):
            while len(header := frames.read(_HEADER.size)) == _HEADER.size:
                stream, size = _HEADER.unpack(header)
                # One frame is what the engine read from the job at once, 32 KiB at most.
                yield stream, frames.read(size)

    def interrupt(self) -> None:
        with suppress(OSError):  # the engine may have closed its end first
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            # First the response: from Python 3.13 on, one that finds its socket closed complains on stderr.
            if (response := getattr(self._attached, "_response", None)) is not None:
                response.close()
            self._attached.close()
            self._socket.close()


class LoggedOutput:
    """The output that the engine has kept since the container's start, and then what it still writes.

    Not the SDK's `logs`, which does not say which stream a piece belongs to.
    """

    def __init__(self, client: APIClient, container: str, *, follow: bool = True) -> None:
        """Raises what the SDK raises."""
        wanted = {"stdout": 1, "stderr": 1, "follow": int(follow), "tail": "all"}
        sdk = cast(Any, client)  # what it uses for this itself is not in its types
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

    def interrupt(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._response.close()


def log_is_complete(client: APIClient, container: str, limit: int) -> bool:
    """Whether the engine still has the container's output from the first line on.

    `limit`: bytes of one log file, after which the engine starts to drop the oldest.
    """
    output = LoggedOutput(client, container, follow=False)
    try:
        return sum(len(data) + _LOG_ENTRY_SIZE for _, data in output) < limit
    finally:
        output.close()
