"""Pipes for the output of a job's process, and how they are emptied into its results."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

import trio

from bacalhau_p2p.executors.results import KeptStream

_PIPE_SIZE = 256 * 1024
_THREAD_SIZE = 256 * 1024
"""Bytes of a stream from which writing it would delay everything else on the node without a thread."""


class Pipes:
    """Two pipes, for stdout and stderr."""

    def __init__(self) -> None:
        first, second = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        self.readers = (first[0], second[0])
        self.writers = (first[1], second[1])
        self._writers_open = True
        for fd in self.readers:
            os.set_blocking(fd, False)
            with suppress(OSError):  # above this user's limit for pipes; small ones work too
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)

    def close_writers(self) -> None:
        if self._writers_open:
            self._writers_open = False
            for fd in self.writers:
                os.close(fd)

    def close(self) -> None:
        self.close_writers()
        for fd in self.readers:
            os.close(fd)


async def drain(pipe: int, stream: KeptStream) -> None:
    """Move everything from the pipe into the stream, until all writers are closed. Raises ExecutorError."""
    while True:
        await trio.lowlevel.wait_readable(pipe)
        try:
            data = os.read(pipe, _PIPE_SIZE)
        except BlockingIOError:
            continue
        if not data:
            return
        if stream.kept < _THREAD_SIZE or not stream.room:
            stream.write(data)
        else:
            await trio.to_thread.run_sync(stream.write, data)
