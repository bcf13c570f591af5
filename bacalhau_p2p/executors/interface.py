"""What an executor does, and the results folder that it leaves behind."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import NetworkSpec, ResultPath, SpecConfig
from bacalhau_p2p.model.resources import Resources

STREAM_LIMIT = 1024**3
"""Bytes of stdout, and of stderr, kept in the results folder; what a job writes beyond is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedInput:
    """An input on this machine's disk (`path`, a file or a folder) and where the job finds it."""

    path: Path
    target: str
    alias: str = ""
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One execution, with everything that it needs at hand.

    `work` is where the executor may make a folder of this execution alone, for anything.
    `results` is an empty folder: `run` fills it.
    """

    job_id: JobID
    execution_id: ExecutionID
    engine: SpecConfig
    inputs: Sequence[MountedInput]
    result_paths: Sequence[ResultPath]
    environment: Mapping[str, str]
    resources: Resources
    network: NetworkSpec
    timeout: float
    deterministic: bool
    work: Path
    results: Path
    labels: Mapping[str, str] = field(default_factory=dict)


class Executor(Protocol):
    """Runs one kind of engine. One object serves all executions of a node, concurrently."""

    @property
    def engine(self) -> str:
        """The engine type that it runs, lower case: `docker`."""
        ...

    @property
    def outlives_node(self) -> bool:
        """Whether a run goes on without the process that began it, and `reattach` takes it up again."""
        ...

    async def unavailable(self) -> str | None:
        """Why this engine cannot run anything here now, or None. Takes at most 5 seconds."""
        ...

    def faults(self, engine: SpecConfig) -> list[Fault]:
        """What is wrong with these engine parameters, by path (`Params.Image`).

        Pure and fast: it looks at nothing but the parameters and this node's settings.
        """
        ...

    async def prepare(self, request: RunRequest) -> None:
        """Get what the run needs and what may take long: pull the image, compile the module.

        Raises ExecutorError; `permanent` says whether a second node would fail alike.
        """
        ...

    async def run(self, request: RunRequest) -> RunOutput:
        """Run one execution once, leaving the results folder in `request.results`:
        `stdout`, `stderr`, `exitCode` (the number as text, no newline) and one folder for each
        result path, by its name.

        A non-zero exit code is a result. Raises RunTimedOut after `request.timeout` seconds, and
        ExecutorError when the engine could not start it.
        Cancelled: the container or process is gone before this returns.
        """
        ...

    async def reattach(self, request: RunRequest) -> RunOutput | None:
        """Go on with a run of this execution that outlived the process which began it, as `run` would.

        None when nothing is left of it: then it may be prepared and run afresh. The time-out counts
        from the start of the run. Raises as `run`. Cancelled: as with `run`.
        """
        ...

    async def sweep(self, alive: Collection[ExecutionID]) -> None:
        """Remove what an earlier life of this node left running, but for runs of the executions `alive`,
        which are or will be re-attached, and for what this object runs itself.

        Raises ExecutorError when the engine does not answer; then it is asked again later.
        """
        ...

    async def aclose(self) -> None:
        """Nothing of this executor runs any more when it returns."""
        ...
