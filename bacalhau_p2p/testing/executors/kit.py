"""What a check needs of the engine that it tests."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol

from bacalhau_p2p.executors.interface import Executor, MountedInput, RunRequest
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import NetworkSpec, ResultPath, SpecConfig
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.testing.purity import no_io

LINE = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n"
"""The 64 bytes that `Programs.flood` repeats."""

MEMORY = 128 * 1024**2
"""Bytes of memory that each run gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Something that an engine can run, and the inputs that the engine needs for it (its module)."""

    engine: SpecConfig
    inputs: Sequence[MountedInput] = ()


class Programs(Protocol):
    """Programs for one engine. Paths are absolute, inside the job."""

    def exit_with(self, code: int) -> Program:
        """Exits with this code, without output."""
        ...

    def say(self, stdout: str, stderr: str) -> Program:
        """Writes exactly these texts, of printable ASCII, to the two streams, and exits with 0."""
        ...

    def flood(self, lines: int) -> Program:
        """Writes `LINE` so many times to stdout, half as many to stderr, and exits with 0."""
        ...

    def copy(self, source: str, target: str) -> Program:
        """Copies one file, and exits with 0, or with another code when it fails."""
        ...

    def write(self, path: str, text: str) -> Program:
        """Creates or overwrites the file, and exits with 0, or with another code when it fails."""
        ...

    def print_variable(self, name: str) -> Program:
        """Writes exactly the value of an environment variable to stdout."""
        ...

    def print_arguments(self, arguments: Sequence[str]) -> Program:
        """Starts with these arguments, and writes each to stdout, followed by a newline."""
        ...

    def hold(self, path: str) -> Program:
        """Opens a named pipe for writing, writes nothing, and sleeps for an hour."""
        ...

    def spin(self, path: str) -> Program:
        """Opens a named pipe for writing, writes nothing, and uses the CPU without end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorKit:
    """What a check needs. `folder` is empty, and for this check alone."""

    executor: Executor
    programs: Programs
    folder: Path
    patience: float = 60
    """Seconds after which a check fails."""
    _numbers: count[int] = field(default_factory=count)

    def request(
        self,
        program: Program,
        *,
        inputs: Sequence[MountedInput] = (),
        result_paths: Sequence[ResultPath] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float = 600,
        deterministic: bool = False,
    ) -> RunRequest:
        """A request to run this program, with new folders."""
        number = next(self._numbers)
        base = self.folder / f"run-{number}"
        work, results = base / "work", base / "results"
        base.mkdir(parents=True)
        results.mkdir()
        return RunRequest(
            job_id=JobID(f"j-conformance-{os.getpid()}"),
            execution_id=ExecutionID(f"e-conformance-{os.getpid()}-{id(self):x}-{number}"),
            engine=program.engine,
            inputs=[*program.inputs, *inputs],
            result_paths=result_paths,
            environment=environment or {},
            resources=Resources(cpu=0.5, memory=MEMORY, disk=1024**3),
            network=NetworkSpec(),
            timeout=timeout,
            deterministic=deterministic,
            work=work,
            results=results,
        )

    async def run(self, request: RunRequest) -> RunOutput:
        """Check the parameters, prepare and run. Raises as the executor does."""
        with no_io():
            faults = self.executor.faults(request.engine)
        assert faults == [], f"the kit's own program has faults: {faults}"
        await self.executor.prepare(request)
        return await self.executor.run(request)

    def input_folder(
        self, target: str, files: Mapping[str, str], *, read_only: bool = True, owned: bool = False
    ) -> MountedInput:
        """A folder with these files, readable by all users, to be mounted at `target`."""
        path = self.folder / f"input-{next(self._numbers)}"
        path.mkdir()
        for name, text in files.items():
            (path / name).write_text(text, encoding="utf-8")
        return MountedInput(path=path, target=target, read_only=read_only, owned=owned)
