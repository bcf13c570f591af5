"""An executor whose runs write what a test tells them to, when it tells them."""

from __future__ import annotations

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.executors.results import ResultsFolder
from bacalhau_p2p.model.execution import RunOutput


class WritingExecutor(NoopExecutor):
    """Its runs write to the results folder as those of other engines do, and end when told."""

    def __init__(self) -> None:
        self.running = trio.Event()
        self.results: ResultsFolder | None = None
        self._ended = trio.Event()
        self._failure: ExecutorError | None = None
        self._exit_code = 0

    async def run(self, request: RunRequest) -> RunOutput:
        with ResultsFolder(request.results, request.result_paths) as self.results:
            self.running.set()
            with trio.move_on_after(request.timeout) as in_time:
                await self._ended.wait()
            if in_time.cancelled_caught:
                raise request.timed_out()
            if self._failure is not None:
                raise self._failure
            return self.results.finish(self._exit_code)

    async def write(self, stdout: bytes = b"", stderr: bytes = b"") -> None:
        await self.running.wait()
        assert self.results is not None
        self.results.stdout.write(stdout)
        self.results.stderr.write(stderr)

    def end(self, exit_code: int = 0, *, failure: ExecutorError | None = None) -> None:
        self._exit_code, self._failure = exit_code, failure
        self._ended.set()
