"""The work of a map: submits jobs, waits for them, and stops them when it is left early."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from bacalhau_p2p.client import live, views
from bacalhau_p2p.client.jobs import JobHandle, JobLike, spec_of
from bacalhau_p2p.client.outcomes import Outcome, is_of_the_job
from bacalhau_p2p.client.results import Result
from bacalhau_p2p.client.retry import RECONNECT, Patience
from bacalhau_p2p.client.specs import with_input
from bacalhau_p2p.errors import BacalhauError, Fault, InvalidJob, JobNotFinished, NodeUnavailable
from bacalhau_p2p.model.job import JobSpec

DEFAULT_LIMIT = 16
"""Jobs of one map that are submitted and have not ended."""
RESULTS_AHEAD = 1_000
"""Results that may wait for an earlier one before a map submits no further job."""
STOP_TIMEOUT = 10.0
"""Seconds to stop the jobs of a map that is left early."""
_SHOWN_FAILURES = 5
_STOPPED = "the map that submitted it was stopped"

T = TypeVar("T")
V = TypeVar("V")


class Submit(Protocol):
    async def __call__(self, job: JobLike, *, idempotency_token: str | None = None) -> JobHandle: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOptions:
    """How a map treats its jobs: see `map` of a client."""

    limit: int = DEFAULT_LIMIT
    timeout: float | None = None
    check: bool = False
    stop: bool = True

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}")


class MapRun(Generic[T, V]):
    """One map. `run` runs beside whoever takes the outcomes."""

    def __init__(
        self,
        submit: Submit,
        job: JobLike | Callable[[T], JobLike | Awaitable[JobLike]],
        inputs: Iterable[T] | AsyncIterable[T],
        read: Callable[[Result], Awaitable[V]] | None,
        options: MapOptions,
    ) -> None:
        """Raises InvalidJob for a job that is given as such."""
        self._submit = submit
        self._job = job if callable(job) else spec_of(job)
        self._inputs = inputs
        self._read = read
        self._options = options
        self._sender: MemoryObjectSendStream[Outcome[T, V]]
        self.outcomes: MemoryObjectReceiveStream[Outcome[T, V]]
        self._sender, self.outcomes = anyio.create_memory_object_stream()
        self._running = anyio.Semaphore(options.limit)
        self._ahead = anyio.Semaphore(options.limit + RESULTS_AHEAD)
        self._reached = self._finished = False
        self.submitted = self.ended = self.failed = 0
        """Jobs so far."""
        self.failures: deque[tuple[str, str]] = deque(maxlen=_SHOWN_FAILURES)
        """The last of them: input and error."""
        self.displays = live.Displays()
        self.error: BaseException | None = None
        """Why the map ended early, once there are no more outcomes."""

    def __repr__(self) -> str:
        return f"<map: {self}>"

    def __str__(self) -> str:
        return f"{self.ended} of {self.submitted} jobs ended, {self.failed} failed"

    def _repr_html_(self) -> str:
        return views.progress(self.submitted, self.ended, self.failed, list(self.failures))

    async def _changes(self) -> AsyncGenerator[None, None]:
        """For a view of this map: says now and then that it may have changed, until there are no more
        outcomes."""
        while not self._finished:
            yield
            await anyio.sleep(live.REFRESH)

    def handed_over(self) -> None:
        """An outcome is with the user: there is room for one more."""
        self._ahead.release()

    def leave(self) -> None:
        """Nobody takes outcomes any more."""
        self.outcomes.close()
        self._finished = True

    async def run(self) -> None:
        try:
            await self._run_all()
        finally:
            self._finished = True

    async def _run_all(self) -> None:
        with self._sender:
            try:
                async with anyio.create_task_group() as group:
                    index = 0
                    async for item in _each(self._inputs):
                        await self._ahead.acquire()
                        await self._running.acquire()
                        group.start_soon(self._run_one, index, item)
                        index += 1
            except BaseExceptionGroup as errors:
                _, failures = errors.split(anyio.get_cancelled_exc_class())
                if failures is None:
                    raise
                self.error = _first(failures)

    async def _run_one(self, index: int, item: T) -> None:
        submission = _Submission(self._submit)
        value, failure = None, None
        try:
            spec = await self._spec(item)
            # Without any job so far the address may be wrong, and trying again is in vain.
            job = await submission.submit(spec, reconnect=RECONNECT if self._reached else 0.0)
            self._reached = True
            self.submitted += 1
            value = await self._value(job)
        except BacalhauError as error:
            if not is_of_the_job(error):
                raise
            if isinstance(error, JobNotFinished) and self._options.stop:
                await submission.stop()
            failure = error
            self.failed += 1
            self.failures.append((f"{item!r:.200}", str(error)))
        except anyio.get_cancelled_exc_class():
            if self._options.stop:
                await submission.stop()
            raise
        self.ended += 1
        await self._sender.send(Outcome(item, index, submission.job, failure, value))
        self._running.release()

    async def _spec(self, item: T) -> JobSpec:
        if isinstance(self._job, JobSpec):
            return with_input(self._job, item)
        made = self._job(item)
        made = await made if isinstance(made, Awaitable) else made
        if not isinstance(made, JobSpec | Mapping | str):
            problem = f"the function returned a value of type {type(made).__name__}, not a job"
            raise InvalidJob(
                [Fault("", f"{problem}; to run the function itself as a job, put @remote above it")]
            )
        return spec_of(made)

    async def _value(self, job: JobHandle) -> Any:
        result = await job.wait_result(self._options.timeout, check=self._options.check)
        return result if self._read is None else await self._read(result)


class _Submission:
    """The job of one input: submitted once, however often that takes."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._token = os.urandom(16).hex()
        self._spec: JobSpec | None = None
        self.job: JobHandle | None = None

    async def submit(self, spec: JobSpec, *, reconnect: float) -> JobHandle:
        self._spec = spec
        patience = Patience(reconnect)
        while self.job is None:
            try:
                self.job = await self._submit(spec, idempotency_token=self._token)
            except NodeUnavailable as error:
                await anyio.sleep(patience.pause(error, now=anyio.current_time()))
        return self.job

    async def stop(self) -> None:
        """Stop the job, also if it is not known whether the node has it. Takes STOP_TIMEOUT at most."""
        if self._spec is None:
            return
        with anyio.move_on_after(STOP_TIMEOUT, shield=True):
            try:
                job = self.job or await self._submit(self._spec, idempotency_token=self._token)
                await job.cancel(_STOPPED)
            except BacalhauError:
                pass  # the node is gone, or knows no such job: there is nobody to tell


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
