"""A node's HTTP API for scripts: `Client` without `async` and `await`.

with SyncClient("http://127.0.0.1:1234") as client:
    job = client.submit(docker("busybox", "echo", "hello"))
    print(job.wait_result().stdout)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.client.functions import FunctionJob
from bacalhau_p2p.client.jobs import JobHandle, JobLike
from bacalhau_p2p.client.map_run import DEFAULT_LIMIT
from bacalhau_p2p.client.mapping import AsCompleted, JobMap
from bacalhau_p2p.client.portal import Portal, in_thread, items_of
from bacalhau_p2p.client.results import Result
from bacalhau_p2p.client.retry import RECONNECT
from bacalhau_p2p.client.sync_jobs import SyncFunctionJob, SyncJobHandle, SyncOutcome, SyncResult
from bacalhau_p2p.client.twin_docs import described_by
from bacalhau_p2p.functions.remote import RemoteFunction
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.history import HistoryEvent
from bacalhau_p2p.model.node import NodeInfo

T = TypeVar("T")
V = TypeVar("V")

SyncMapJob = JobLike | Callable[[T], JobLike]
"""A job that gets each input at `/inputs`, or a function that makes the job of an input."""


@described_by(Client)
class SyncClient:
    """A node behind HTTP, for scripts, and for notebooks that do not want to `await`.

    Its methods are those of `Client`, without `await`. Use it in a `with` block, or call `close` at the end.
    Several threads may use one at the same time. Ctrl-C ends what waits and leaves the job alone; a map is
    stopped as if its loop was left.
    """

    def __init__(
        self, url: str | None = None, *, token: str | None = None, reconnect: float = RECONNECT
    ) -> None:
        self._client = Client(url, token=token, reconnect=reconnect)
        self._portal = Portal()
        self._finalizer = weakref.finalize(self, self._portal.close, self._client.aclose)

    def __repr__(self) -> str:
        return f"<SyncClient of {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the maps that still run, and close all connections."""
        self._finalizer()

    @property
    def url(self) -> str:
        return self._client.url

    def submit(self, job: JobLike, *, idempotency_token: str | None = None) -> SyncJobHandle:
        async def submit() -> JobHandle:
            return await self._client.submit(job, idempotency_token=idempotency_token)

        return SyncJobHandle(self._portal, self._portal.call(submit))

    def submit_function(
        self, function: Callable[..., V], /, *args: object, **kwargs: object
    ) -> SyncFunctionJob[V]:
        async def submit() -> FunctionJob[V]:
            return await self._client.submit_function(function, *args, **kwargs)

        return SyncFunctionJob(self._portal, self._portal.call(submit))

    def job(self, job_id: str) -> SyncJobHandle:
        return SyncJobHandle(self._portal, self._portal.call(self._client.job, job_id))

    def jobs(self, *, limit: int = 10, id_prefix: str = "") -> Sequence[Job]:
        async def jobs() -> Sequence[Job]:
            return await self._client.jobs(limit=limit, id_prefix=id_prefix)

        return self._portal.call(jobs)

    def events(
        self,
        *,
        jobs: Sequence[str] = (),
        labels: Sequence[str] = (),
        kinds: Sequence[str] = (),
        after: int | None = None,
    ) -> Iterator[HistoryEvent]:
        events = self._client.events(jobs=jobs, labels=labels, kinds=kinds, after=after)
        return self._portal.iterate(events)

    def nodes(self) -> Sequence[NodeInfo]:
        return self._portal.call(self._client.nodes)

    def add(self, path: Path | str) -> str:
        return self._portal.call(self._client.add, path)

    def fetch(self, cid: str, target: Path | str) -> Path:
        return self._portal.call(self._client.fetch, cid, target)

    @overload
    def map(  # type: ignore[overload-overlap]  # a remote function is told apart by its class
        self,
        job: RemoteFunction[..., V],
        inputs: Iterable[T],
        *,
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        stop: bool = True,
    ) -> Iterator[V]: ...

    @overload
    def map(
        self,
        job: SyncMapJob[T],
        inputs: Iterable[T],
        *,
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        check: bool = False,
        stop: bool = True,
    ) -> Iterator[SyncResult]: ...

    @overload
    def map(
        self,
        job: SyncMapJob[T],
        inputs: Iterable[T],
        *,
        read: Callable[[SyncResult], V],
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        check: bool = False,
        stop: bool = True,
    ) -> Iterator[V]: ...

    def map(
        self,
        job: SyncMapJob[Any] | RemoteFunction[..., Any],
        inputs: Iterable[Any],
        *,
        read: Callable[[SyncResult], Any] | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        """As `Client.map`: `for result in client.map(...)`, or `list(client.map(...))`. `job` and `read` are
        called in threads, so they may use this client."""
        return self._portal.iterate(JobMap(self._as_completed(job, inputs, read, options)))

    @overload
    def as_completed(  # type: ignore[overload-overlap]
        self,
        job: RemoteFunction[..., V],
        inputs: Iterable[T],
        *,
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        stop: bool = True,
    ) -> Iterator[SyncOutcome[T, V]]: ...

    @overload
    def as_completed(
        self,
        job: SyncMapJob[T],
        inputs: Iterable[T],
        *,
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        check: bool = False,
        stop: bool = True,
    ) -> Iterator[SyncOutcome[T, SyncResult]]: ...

    @overload
    def as_completed(
        self,
        job: SyncMapJob[T],
        inputs: Iterable[T],
        *,
        read: Callable[[SyncResult], V],
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
        check: bool = False,
        stop: bool = True,
    ) -> Iterator[SyncOutcome[T, V]]: ...

    def as_completed(
        self,
        job: SyncMapJob[Any] | RemoteFunction[..., Any],
        inputs: Iterable[Any],
        *,
        read: Callable[[SyncResult], Any] | None = None,
        **options: Any,
    ) -> Iterator[SyncOutcome[Any, Any]]:
        """As `Client.as_completed`; see `map`."""
        return self._outcomes(self._as_completed(job, inputs, read, options))

    def _as_completed(
        self,
        job: SyncMapJob[Any] | RemoteFunction[..., Any],
        inputs: Iterable[Any],
        read: Callable[[SyncResult], Any] | None,
        options: dict[str, Any],
    ) -> AsCompleted[Any, Any]:
        async def read_sync(result: Result) -> Any:
            handle = SyncResult(self._portal, result)
            return handle if read is None else await in_thread(read)(handle)

        async def start() -> AsCompleted[Any, Any]:
            if isinstance(job, RemoteFunction):
                return self._client.as_completed(job, items_of(inputs), **options)
            made = in_thread(job) if callable(job) else job
            return self._client.as_completed(made, items_of(inputs), read=read_sync, **options)

        return self._portal.call(start)

    def _outcomes(self, completed: AsCompleted[Any, Any]) -> Iterator[SyncOutcome[Any, Any]]:
        for outcome in self._portal.iterate(completed):
            job = None if outcome.job is None else SyncJobHandle(self._portal, outcome.job)
            yield SyncOutcome(outcome.input, outcome.index, job, outcome.error, outcome)
