"""Runs in the background, and pipes by which a check sees whether they live."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.testing.executors.kit import ExecutorKit


class Pipe:
    """A named pipe that a job holds open: shows when the job started, and whether it still runs."""

    def __init__(self, kit: ExecutorKit) -> None:
        self.mount = kit.input_folder("/pipes", {}, read_only=False)
        self.mount.path.chmod(0o777)  # the job may run as a different user
        self.inside = f"{self.mount.target}/alive"
        self._path = self.mount.path / "alive"
        os.mkfifo(self._path)
        self._path.chmod(0o666)
        self._fd: int | None = None
        self._closed = False

    async def wait_opened(self) -> None:
        """Returns when the job has opened the pipe."""
        await trio.to_thread.run_sync(self._open, abandon_on_cancel=True)

    def _open(self) -> None:
        fd = os.open(self._path, os.O_RDONLY)  # blocks until a job opens the pipe for writing
        if self._closed:
            os.close(fd)
        else:
            os.set_blocking(fd, False)
            self._fd = fd

    @property
    def held(self) -> bool:
        """Whether a process has the pipe open for writing now."""
        assert self._fd is not None, "the program never opened the pipe"
        try:
            return os.read(self._fd, 1) != b""
        except BlockingIOError:
            return True

    def close(self) -> None:
        """Close the reading end, and release a thread that waits for a job that never started."""
        self._closed = True
        if self._fd is None:
            os.close(os.open(self._path, os.O_RDWR | os.O_NONBLOCK))
        else:
            os.close(self._fd)


class BackgroundRun:
    """A run in the background, which holds a pipe open."""

    def __init__(self, kit: ExecutorKit, request: RunRequest) -> None:
        self._kit = kit
        self._request = request
        self._scope = trio.CancelScope()
        self.ended = trio.Event()
        self.error: ExecutorError | None = None
        self.output: RunOutput | None = None

    async def run(self) -> None:
        try:
            with self._scope:
                self.output = await self._kit.run(self._request)
        except ExecutorError as error:
            self.error = error
        finally:
            self.ended.set()

    def cancel(self) -> None:
        self._scope.cancel()


@asynccontextmanager
async def running(kit: ExecutorKit, request: RunRequest, pipe: Pipe) -> AsyncIterator[BackgroundRun]:
    """Run in the background for the length of the block, which starts once the job holds `pipe`.

    On exit the run has ended, by itself or cancelled, and the pipe is closed.
    """
    run = BackgroundRun(kit, request)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            async with trio.open_nursery() as race:

                async def finish_first(wait: Callable[[], Awaitable[object]]) -> None:
                    await wait()
                    race.cancel_scope.cancel()

                race.start_soon(finish_first, pipe.wait_opened)
                race.start_soon(finish_first, run.ended.wait)
            assert not run.ended.is_set(), f"the program ended by itself: {run.error or run.output}"
            assert pipe.held, "the program closed the pipe"
            yield run
            run.cancel()
    finally:
        pipe.close()
