"""The interface of executors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bacalhau_p2p.errors import Fault, RunTimedOut
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import NetworkSpec, ResultPath, SpecConfig
from bacalhau_p2p.model.resources import Resources

STREAM_LIMIT = 1024**3
"""Bytes of stdout, and of stderr, kept in the results folder; what a job writes beyond is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedInput:
    """An input on this machine's disk (`path`, a file or a folder) and its path inside the job: `target`, or
    with a `name` this name in the folder `target`.

    `owned`: it was made for this execution, so that an executor may put mount points for others into it.
    `content` names what it contains, if that can never be anything else: a CID that was verified.
    """

    path: Path
    target: str
    alias: str = ""
    read_only: bool = True
    owned: bool = False
    name: str = ""
    content: str = ""

    @property
    def place(self) -> str:
        """Its path inside the job."""
        return f"{self.target}/{self.name}" if self.name else self.target


@dataclass(slots=True)
class Meter:
    """What a run uses, as its executor measures it. None is not measured.

    The executor fills it before `run` or `reattach` returns or raises: a run that fails uses something, too.
    """

    cpu_seconds: float | None = None
    """Processor time of all its processes, in user and kernel mode, not that of preparing it."""
    peak_memory: int | None = None
    """Bytes that its processes held at most."""
    network_bytes_received: int | None = None
    """Bytes from the network. Not measured for jobs without one."""
    network_bytes_sent: int | None = None

    def add_process(self, cpu_seconds: float, peak_memory: int) -> None:
        """Add a process of the run, one of several that run one after the other."""
        self.cpu_seconds = (self.cpu_seconds or 0.0) + cpu_seconds
        self.peak_memory = max(self.peak_memory or 0, peak_memory)


def tell_nobody(doing: str) -> None:
    """A `note` that nobody reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One execution, with everything that it needs.

    `work` is where the executor may make a folder for this execution alone, for anything.
    `results` is an empty folder, which `run` fills. `meter` is for what the run uses.
    `note` tells what preparing it waits for, such as `pulling image busybox`, and with an empty text that it
    does not any more. The user of the job reads it if it takes long.
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
    gpus: Sequence[str] = ()
    """The ids of the GPUs that it has for itself; empty: any `resources.gpu` of them."""
    meter: Meter = field(default_factory=Meter, compare=False)
    note: Callable[[str], None] = field(default=tell_nobody, compare=False)

    def timed_out(self) -> RunTimedOut:
        """The error for a run that reached its timeout."""
        return RunTimedOut(f"the job exceeded its execution timeout of {self.timeout:g} s")


class Executor(Protocol):
    """Runs one kind of engine. One object serves all executions of a node, concurrently.

    An executor whose runs end with the node derives from this class: it inherits `outlives_node`,
    `reattach` and `sweep`, which have nothing to do then.

    An executor that isolates its runs itself may have a property `walls`: the names of what keeps them from
    the rest of this machine, which the node shows.
    """

    @property
    def engine(self) -> str:
        """The engine type that it runs, lower case: `docker`."""
        ...

    @property
    def outlives_node(self) -> bool:
        """Whether a run continues when the node that started it dies, and `reattach` can resume it."""
        return False

    async def unavailable(self) -> str | None:
        """Why this engine cannot run anything on this node now, or None. Takes at most 5 seconds."""
        ...

    def network_problem(self, network: str) -> str | None:
        """Why no job on this node can have this network (`HTTP`, `Full`), or None. Fast."""
        return None

    def faults(self, engine: SpecConfig) -> list[Fault]:
        """What is wrong with these engine parameters, by path (`Params.Image`).

        Pure and fast: it looks at nothing but the parameters and this node's settings.
        """
        ...

    async def prepare(self, request: RunRequest) -> None:
        """Do what may take long before the run: pull the image, compile the module.

        Raises ExecutorError; `permanent` says whether every node would fail in the same way.
        """
        ...

    async def run(self, request: RunRequest) -> RunOutput:
        """Run one execution once, leaving the results folder in `request.results`:
        `stdout`, `stderr`, `exitCode` (the number as text, no newline) and one folder for each
        result path, by its name.

        A non-zero exit code is a result. Raises RunTimedOut after `request.timeout` seconds, and
        ExecutorError when the engine could not start it.
        Cancelled: the container or process has ended before this returns. However it ends, what the run
        used is in `request.meter`, as far as this engine measures it.
        """
        ...

    async def reattach(self, request: RunRequest) -> RunOutput | None:
        """Resume a run of this execution that outlived the process which started it, as `run` would.

        None when nothing of it is left: then it may be prepared and run again. The timeout counts
        from the start of the run. Raises as `run`. Cancelled: as with `run`.
        """
        return None

    async def sweep(self, alive: Collection[ExecutionID]) -> None:
        """Remove what runs of this node left behind, but not those of executions in `alive`, which are or
        will be re-attached, and those that this object runs now.

        Called at the start of a node and then at intervals. Raises ExecutorError when the engine does not
        answer.
        """
        return

    async def aclose(self) -> None:
        """When this returns, nothing of this executor runs any more."""
        ...
