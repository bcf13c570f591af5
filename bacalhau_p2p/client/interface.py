"""What a node offers to programs, whether it is in this process (`Node`) or behind HTTP (`Client`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, overload

from bacalhau_p2p.client.functions import FunctionJob
from bacalhau_p2p.client.jobs import JobHandle, JobLike
from bacalhau_p2p.client.map_run import DEFAULT_LIMIT
from bacalhau_p2p.client.mapping import AsCompleted, Inputs, JobMap, MapJob
from bacalhau_p2p.client.results import Result
from bacalhau_p2p.functions.remote import RemoteFunction
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.history import HistoryEvent
from bacalhau_p2p.model.node import NodeInfo

T = TypeVar("T")
V = TypeVar("V")


class AnyNode(Protocol):
    """A `Node` or a `Client`: annotate with it what works with both.

    A `Client` raises NodeUnavailable from every method, and ApiError for a response that makes no sense.
    Cancelling any method is safe.
    """

    async def submit(self, job: JobLike, *, idempotency_token: str | None = None) -> JobHandle:
        """Submit a job: a `JobSpec`, a mapping, or JSON or YAML text. It is durable when this returns.

        The same token returns the same job. Raises InvalidJob with the path of every fault.
        """
        ...

    async def submit_function(
        self, function: Callable[..., V], /, *args: object, **kwargs: object
    ) -> FunctionJob[V]:
        """Run a plain Python function with these arguments as a job: `await job.value()` is what it returns.

        `remote(count=3)(function)` says what its jobs ask for. `docs/functions.md` says what can
        be sent. Raises InvalidFunction, InvalidValue and InvalidJob with what to do; TypeError for
        arguments that the function does not take.
        """
        ...

    async def job(self, job_id: str) -> JobHandle:
        """The job with this id, name or prefix of an id. Raises UnknownJob, AmbiguousID."""
        ...

    async def jobs(self, *, limit: int = 10, id_prefix: str = "") -> Sequence[Job]:
        """The latest jobs whose id has this prefix, newest first."""
        ...

    def events(
        self,
        *,
        jobs: Sequence[str] = (),
        labels: Sequence[str] = (),
        kinds: Sequence[str] = (),
        after: int | None = None,
    ) -> AsyncGenerator[HistoryEvent, None]:
        """What happens to all jobs of this node from now on, or behind the `place` of an event; endless.

        `jobs` (ids or names), `labels` (selectors such as `team=a,!slow`) and `kinds` leave out others. An
        event of the kind `Omitted` without a job says that others were deleted with their jobs before they
        were read. Goes on after a connection has broken. Raises UnknownJob, ApiError.
        """
        ...

    async def nodes(self) -> Sequence[NodeInfo]:
        """The nodes that this one knows, itself included."""
        ...

    async def add(self, path: Path | str) -> str:
        """Add a file or folder to the node, which pins it, and return its CID. Then peers can fetch it.

        Hidden files are left out, as by `ipfs add -r`. Raises ContentError.
        """
        ...

    async def fetch(self, cid: str, target: Path | str) -> Path:
        """Write the content of `CID[/path]` to `target`, which must not exist, and return its path.

        Every block is verified against its CID. Raises ContentError; then nothing is left there.
        """
        ...

    @overload
    def map(  # type: ignore[overload-overlap]  # a remote function is told apart by its class
        self,
        job: RemoteFunction[..., V],
        inputs: Inputs[T],
        *,
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        stop: bool = True,
    ) -> JobMap[V]: ...

    @overload
    def map(
        self,
        job: MapJob[T],
        inputs: Inputs[T],
        *,
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        check: bool = False,
        stop: bool = True,
    ) -> JobMap[Result]: ...

    @overload
    def map(
        self,
        job: MapJob[T],
        inputs: Inputs[T],
        *,
        read: Callable[[Result], Awaitable[V]],
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        check: bool = False,
        stop: bool = True,
    ) -> JobMap[V]:
        """Run one job for each input, at most `limit` at a time, and give their results in order.

            async for result in client.map(docker("busybox", "wc", "/inputs"), cids): ...
            results = await client.map(lambda n: docker("busybox", "echo", str(n)), range(100))

        `job` is a job, which gets each input at `/inputs`, or a function that makes the job of an input, or a
        function that runs as a job (`@remote`): then the results are what it returns.
        `read` makes of each result what you want, such as `lambda result: result.read("outputs/count")`.
        `timeout`: seconds to wait for each job, from its submission. `check`: an exit code that is not 0 is a
        failure.

        The first failure is raised (JobFailed, JobNotFinished, InvalidJob, ContentError), with a note that
        names the input. Then, and when the loop is left early or cancelled, the jobs that have not ended are
        stopped, unless `stop` is false.
        """
        ...

    @overload
    def as_completed(  # type: ignore[overload-overlap]  # a remote function is told apart by its class
        self,
        job: RemoteFunction[..., V],
        inputs: Inputs[T],
        *,
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        stop: bool = True,
    ) -> AsCompleted[T, V]: ...

    @overload
    def as_completed(
        self,
        job: MapJob[T],
        inputs: Inputs[T],
        *,
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        check: bool = False,
        stop: bool = True,
    ) -> AsCompleted[T, Result]: ...

    @overload
    def as_completed(
        self,
        job: MapJob[T],
        inputs: Inputs[T],
        *,
        read: Callable[[Result], Awaitable[V]],
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        check: bool = False,
        stop: bool = True,
    ) -> AsCompleted[T, V]:
        """Like `map`, but gives the outcome of each input as soon as its job has ended: `outcome.input` and
        `outcome.result`, or `outcome.error`. A job that fails does not end it; a node that cannot be reached
        does."""
        ...
