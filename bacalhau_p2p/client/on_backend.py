"""`AnyNode` on top of a backend."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bacalhau_p2p.client.backend import Backend
from bacalhau_p2p.client.calls import EventFilter
from bacalhau_p2p.client.detached import DetachedTasks
from bacalhau_p2p.client.functions import FunctionCalls, FunctionJob
from bacalhau_p2p.client.interface import AnyNode
from bacalhau_p2p.client.jobs import JobHandle, JobLike, spec_of
from bacalhau_p2p.client.map_run import MapOptions
from bacalhau_p2p.client.mapping import AsCompleted, Inputs, JobMap, MapJob
from bacalhau_p2p.client.results import Result
from bacalhau_p2p.functions.remote import RemoteFunction, as_remote
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.history import HistoryEvent
from bacalhau_p2p.model.node import NodeInfo

R = TypeVar("R")


class OnBackend(AnyNode):
    """The methods of `AnyNode`, which describes them, for a node that has a backend."""

    _backend: Backend

    async def submit(self, job: JobLike, *, idempotency_token: str | None = None) -> JobHandle:
        return JobHandle(self._backend, await self._backend.submit(spec_of(job), idempotency_token))

    async def submit_function(
        self, function: Callable[..., R], /, *args: object, **kwargs: object
    ) -> FunctionJob[R]:
        call = self._functions.prepare(as_remote(function))
        spec = await call.job_of(*args, **kwargs)
        return FunctionJob(self._backend, await self._backend.submit(spec, None), call)

    async def job(self, job_id: str) -> JobHandle:
        return JobHandle(self._backend, (await self._backend.job(job_id)).id)

    async def jobs(self, *, limit: int = 10, id_prefix: str = "") -> Sequence[Job]:
        return await self._backend.jobs(limit, id_prefix)

    async def events(
        self,
        *,
        jobs: Sequence[str] = (),
        labels: Sequence[str] = (),
        kinds: Sequence[str] = (),
        after: int | None = None,
    ) -> AsyncGenerator[HistoryEvent, None]:
        wanted = EventFilter(jobs=jobs, labels=labels, kinds=kinds)
        async with aclosing(self._backend.feed(wanted, after)) as events:
            async for event in events:
                yield event

    async def nodes(self) -> Sequence[NodeInfo]:
        return await self._backend.nodes()

    async def add(self, path: Path | str) -> str:
        return await self._backend.add(Path(path))

    async def fetch(self, cid: str, target: Path | str) -> Path:
        await self._backend.export(cid, Path(target))
        return Path(target)

    if TYPE_CHECKING:  # what a map gives depends on what it is given, as `AnyNode` says
        map = AnyNode.map
        as_completed = AnyNode.as_completed
    else:

        def map(
            self,
            job: MapJob[Any] | RemoteFunction[..., Any],
            inputs: Inputs[Any],
            *,
            read: Callable[[Result], Awaitable[Any]] | None = None,
            **options: Any,
        ) -> JobMap[Any]:
            return JobMap(self.as_completed(job, inputs, read=read, **options))

        def as_completed(
            self,
            job: MapJob[Any] | RemoteFunction[..., Any],
            inputs: Inputs[Any],
            *,
            read: Callable[[Result], Awaitable[Any]] | None = None,
            **options: Any,
        ) -> AsCompleted[Any, Any]:
            if isinstance(job, RemoteFunction):
                call = self._functions.prepare(job)
                job, read = call.job_of, call.value_of
            return AsCompleted(self.submit, job, inputs, read, MapOptions(**options), self._maps)

    @cached_property
    def _functions(self) -> FunctionCalls:
        return FunctionCalls(self._backend)

    @cached_property
    def _maps(self) -> DetachedTasks:
        """The maps that run now; whoever closes the node ends them."""
        return DetachedTasks()
