"""Follows a container to its end, and looks up the history of one from an earlier process."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, Self

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.container_output import STDERR, LoggedOutput, Output, log_is_complete
from bacalhau_p2p.executors.docker.container_usage import ContainerUsage
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.results import ResultsFolder

if TYPE_CHECKING:
    from docker import APIClient

LOG_FILE_SIZE = 32 * 1024**2
"""Bytes of a container's output that the engine keeps for a node that is killed and starts again."""

REMOVAL_TIMEOUT = 20.0
"""Seconds for the engine to kill and remove one container, which usually takes 0.1 s."""

CONFLICT = 409
"""The engine's status when a container is being removed already."""

KILLED = 137
"""Exit status of a process that was ended by SIGKILL."""

ENGINE_STOPPED = frozenset({KILLED, 143, 255})
"""Exit statuses of containers whose engine or machine stops: killed, terminated, unknown."""


class Removals(Protocol):
    """Is told which containers are being removed. Called in trio's thread."""

    def begun(self, name: str) -> None:
        """The removal of a container that has ended begins."""
        ...

    def ended(self, name: str, removed: bool) -> None:
        """It is over; `removed` says whether the container is gone."""
        ...


class ContainerMonitor:
    """Writes a container's output to the results folder, and waits for its exit status."""

    def __init__(self, engine: DockerEngine, client: APIClient, name: str, results: ResultsFolder) -> None:
        self._engine = engine
        self.client = client
        self.name = name
        self.results = results
        self._scope = trio.CancelScope(shield=True)
        self._status: int | None = None
        self._error: ExecutorError | None = None
        self.output: Output | None = None
        """Where the output comes from; set before `run`."""
        self.output_is_complete = True
        """False when output may be missing, so that the job must be run again."""
        self.ended = trio.Event()
        """The container has ended, or following it has failed."""
        self.removes_ended = False
        """The thread that has followed the container to its end removes it too."""
        self.stopping = False
        """The container is removed by somebody else."""
        self._begun = False
        self._done = trio.Event()
        self.usage = ContainerUsage()

    async def run(self, removals: Removals) -> None:
        """Follow the container to its end, and remove it then, beside what follows. Cancelled only by `stop`:
        its thread writes to files that are closed afterwards."""
        self._begun = True
        with self._scope:
            try:
                await self._engine.long_call(
                    self._follow_and_remove, removals, trio.lowlevel.current_trio_token()
                )
            except ExecutorError as error:
                self._error = error
        self.ended.set()
        self._done.set()

    def _follow_and_remove(self, removals: Removals, token: trio.lowlevel.TrioToken) -> None:
        self._status = self._follow()
        if not trio.from_thread.run_sync(self._end, removals):
            return
        removed = False
        try:
            remove_container(self.client, self.name)
            removed = True
        finally:
            # Nobody may wait for this thread any more: the run is over.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(removals.ended, self.name, removed)

    def _end(self, removals: Removals) -> bool:
        """Say that the container has ended; whether it is to be removed now."""
        if not self.stopping:
            self.removes_ended = True
            removals.begun(self.name)
        self.ended.set()
        return self.removes_ended

    def _follow(self) -> int:
        assert self.output is not None
        for stream, data in self.output:
            (self.results.stderr if stream == STDERR else self.results.stdout).write(data)
        self.usage.sample()  # before the engine tells of the end, when it may be too late
        # Usually the container has ended by now, unless the job closed its output and continued.
        status = int(self.client.wait(self.name, timeout=None)["StatusCode"])
        if status == KILLED:
            container = self.client.inspect_container(self.name)
            if container["State"]["OOMKilled"]:
                limit = container["HostConfig"]["Memory"]
                note = f"out of memory: killed at the limit of {limit} bytes\n"
                self.results.stderr.write(note.encode())
        if isinstance(self.output, LoggedOutput):
            # Following a log misses what is written while the engine switches to its next file.
            self.output_is_complete = log_is_complete(self.client, self.name, LOG_FILE_SIZE)
        return status

    async def stop(self) -> None:
        """To be called after the container was removed, or while that goes on by itself: ends the following,
        and closes the connection."""
        self.usage.close()
        if self.output is None:
            return
        if self.removes_ended:
            self._scope.cancel()
        elif self._begun and not self._done.is_set():
            self.output.interrupt()
            with trio.move_on_after(REMOVAL_TIMEOUT):
                await self._done.wait()
            self._scope.cancel()
        self.output.close()

    def exit_status(self) -> int:
        """To be called after `ended`. Raises ExecutorError when following failed."""
        if self._status is None:
            raise self._error or ExecutorError("the container was not followed to its end")
        return self._status


@dataclass(frozen=True, slots=True)
class ContainerHistory:
    """How long a container has run, and how it ended if it did. Times are UNIX seconds."""

    id: str
    started: float
    ended: float | None
    was_interrupted: bool
    """It stopped with its engine or its machine: its exit status says nothing about the job."""

    @classmethod
    def of(cls, client: APIClient, name: str) -> Self | None:
        """None where no such container exists, or it never started."""
        from docker.errors import NotFound

        try:
            container = client.inspect_container(name)
        except NotFound:
            return None
        state = container["State"]
        if state["Status"] == "created":
            return None
        ended = None if state["Running"] else unix_seconds(state["FinishedAt"])
        interrupted = ended is not None and state["ExitCode"] in ENGINE_STOPPED and not state["OOMKilled"]
        return cls(container["Id"], unix_seconds(state["StartedAt"]), ended, interrupted)

    def seconds(self, now: float | None = None) -> float:
        """How long it has run by now (UNIX seconds, the current time by default)."""
        return (self.ended or (time.time() if now is None else now)) - self.started


def remove_container(client: APIClient, container: str) -> None:
    """Kill and remove a container, if it exists. Blocks."""
    from docker.errors import APIError, NotFound

    with suppress(NotFound):  # never created, or removed already
        try:
            client.remove_container(container, force=True, v=True)
        except APIError as error:
            if error.response is None or error.response.status_code != CONFLICT:
                raise
            client.wait(container, timeout=int(REMOVAL_TIMEOUT), condition="removed")


def unix_seconds(timestamp: str) -> float:
    """UNIX seconds of an engine's timestamp, which has nanoseconds: 2026-11-22T20:48:18.123456789Z."""
    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
