"""A container while somebody attends to it, and how it fared while nobody did: re-attaching needs both."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Self

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.docker.output import STDERR, LoggedOutput, Output, logged_since_start
from bacalhau_p2p.executors.results import ResultsFolder

if TYPE_CHECKING:
    from docker import APIClient

LOG_FILE = 32 * 1024**2
"""Bytes of a container's output that the engine keeps for a node that is killed and comes back."""

REMOVAL_TIMEOUT = 20.0
"""Seconds for the engine to kill and remove one container (0.1 s when all is well)."""

OOM_STATUS = 137
"""What a process killed by SIGKILL ends with."""

ENGINE_STOPPED = frozenset({OOM_STATUS, 143, 255})
"""What containers end with that go down with their engine or machine: killed, terminated, or unknown."""


class Attendant:
    """Takes a container's output to the results folder, and notes how the container ended."""

    def __init__(self, engine: DockerEngine, client: APIClient, name: str, results: ResultsFolder) -> None:
        self._engine = engine
        self.client = client
        self.name = name
        self.results = results
        self._scope = trio.CancelScope(shield=True)
        self._status: int | None = None
        self._error: ExecutorError | None = None
        self.output: Output | None = None
        self.whole = True
        """Whether the results are those of the whole run; otherwise it must be run again."""
        self.ended = trio.Event()

    async def run(self) -> None:
        # Cancelled only by `dismiss`: the thread writes to files that are closed after it.
        with self._scope:
            try:
                self._status = await self._engine.attend(self._follow)
            except ExecutorError as error:
                self._error = error
        self.ended.set()

    def _follow(self) -> int:
        assert self.output is not None
        for stream, data in self.output:
            (self.results.stderr if stream == STDERR else self.results.stdout).write(data)
        # Seldom is there anything left to wait for: only where the job closed its output and went on.
        status = int(self.client.wait(self.name, timeout=None)["StatusCode"])
        if status == OOM_STATUS:
            container = self.client.inspect_container(self.name)
            if container["State"]["OOMKilled"]:
                limit = container["HostConfig"]["Memory"]
                note = f"out of memory: killed at the limit of {limit} bytes\n"
                self.results.stderr.write(note.encode())
        if isinstance(self.output, LoggedOutput):
            # Who follows a log misses what is written while the engine begins its next file.
            self.whole = logged_since_start(self.client, self.name, LOG_FILE)
        return status

    async def dismiss(self) -> None:
        """To be called once the container is gone; ends the thread, and gives the connection back."""
        if self.output is None:
            return
        if not self.ended.is_set():
            self.output.hang_up()
            with trio.move_on_after(REMOVAL_TIMEOUT):
                await self.ended.wait()
            self._scope.cancel()
        self.output.close()

    def status(self) -> int:
        if self._error is not None:
            raise self._error
        assert self._status is not None
        return self._status


@dataclass(frozen=True, slots=True)
class Life:
    """How long a container has run, and how it ended if it did. Times are UNIX seconds."""

    started: float
    ended: float | None
    was_cut_short: bool
    """It went down with its engine or its machine: its end says nothing about the job."""

    @classmethod
    def of(cls, client: APIClient, name: str) -> Self | None:
        """None where there is no such container, or it was never started."""
        from docker.errors import NotFound

        try:
            container = client.inspect_container(name)
        except NotFound:
            return None
        state = container["State"]
        if state["Status"] == "created":
            return None
        ended = None if state["Running"] else seconds_of(state["FinishedAt"])
        cut = ended is not None and state["ExitCode"] in ENGINE_STOPPED and not state["OOMKilled"]
        return cls(seconds_of(state["StartedAt"]), ended, cut)

    @property
    def seconds(self) -> float:
        return (time.time() if self.ended is None else self.ended) - self.started


def seconds_of(moment: str) -> float:
    """UNIX seconds of an engine's time, which has nanoseconds: 2026-11-22T20:48:18.123456789Z."""
    whole, _, fraction = moment.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
