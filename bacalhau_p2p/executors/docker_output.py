"""The live output of a container, with stdout and stderr told apart."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from docker import APIClient

STDOUT = 1
STDERR = 2

_HEADER = struct.Struct(">BxxxL")
_BUFFER = 256 * 1024


class AttachedOutput:
    """All that a container writes from the moment of attaching. Blocks: it belongs in a thread.

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
        """Pieces of output, each with STDOUT or STDERR, until the container ends or `hang_up`."""
        with self._socket.makefile("rb", _BUFFER) as frames, suppress(OSError):
            while len(header := frames.read(_HEADER.size)) == _HEADER.size:
                stream, size = _HEADER.unpack(header)
                # A size is what the engine read from the job at once, 32 KiB at most.
                yield stream, frames.read(size)

    def hang_up(self) -> None:
        """End the iteration, which may be waiting in another thread."""
        with suppress(OSError):  # the engine may have closed its end first
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back, after the iteration has ended."""
        with suppress(OSError):
            self._attached.close()
            self._socket.close()
