"""One job for each input, so many at a time: `client.map` and `client.as_completed`."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import aclosing
from typing import Any, Generic, Protocol, Self, TypeVar

import anyio

from bacalhau_p2p.client.detached import DetachedTask, DetachedTasks
from bacalhau_p2p.client.jobs import JobLike
from bacalhau_p2p.client.map_run import MapOptions, MapRun, Submit
from bacalhau_p2p.client.outcomes import Outcome
from bacalhau_p2p.client.results import Result

T = TypeVar("T")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

MapJob = JobLike | Callable[[T], JobLike | Awaitable[JobLike]]
"""A job that gets each input at `/inputs`, or a function that makes the job of an input."""
Inputs = Iterable[T] | AsyncIterable[T]


class AsCompleted(Generic[T, V]):
    """The outcomes of a map, each as soon as its job has ended. Iterate over it, or await it for a list.

    A loop that is left early stops the map; `aclose` does so at once, and waits for it.
    """

    def __init__(
        self,
        submit: Submit,
        job: MapJob[T],
        inputs: Inputs[T],
        read: Callable[[Result], Awaitable[V]] | None,
        options: MapOptions,
        tasks: DetachedTasks,
    ) -> None:
        self._task: DetachedTask | None = None
        self._tasks = tasks
        self.run = MapRun(submit, job, inputs, read, options)

    def __repr__(self) -> str:
        return f"<AsCompleted: {self.run}>"

    def _repr_html_(self) -> str:
        return self.run._repr_html_()

    def _ipython_display_(self) -> None:
        self.run.displays.show(self.run)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[T, V]:
        outcome = await self.take()
        self.run.handed_over()
        return outcome

    def __await__(self) -> Generator[Any, Any, list[Outcome[T, V]]]:
        return _collected(self).__await__()

    async def take(self) -> Outcome[T, V]:
        """The next outcome, which is not handed over yet."""
        if self._task is None:
            self._task = self._tasks.start(self.run.run)
        try:
            outcome = await self.run.outcomes.receive()
            self.run.displays.refresh(self.run, now=False)
            return outcome
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self.run.displays.refresh(self.run)
            if self.run.error is not None:
                raise self.run.error from None
            raise StopAsyncIteration from None
        except anyio.get_cancelled_exc_class():
            self._task.cancel_soon()
            raise

    def handed_over(self) -> None:
        """An outcome that was taken is with the user."""
        self.run.handed_over()

    async def aclose(self) -> None:
        """Stop the map: jobs that have not ended are stopped, unless it was told to leave them."""
        if self._task is not None:
            await self._task.cancel()
        self.run.leave()

    def __del__(self) -> None:
        # The task does not refer to this iterator, so a loop that is left drops it.
        if self._task is not None:
            self._task.cancel_soon()
        if hasattr(self, "run"):
            self.run.leave()


class JobMap(Generic[V]):
    """The results of a map in the order of its inputs. Iterate over it, or await it for a list.

    The first job that fails ends it: the error is raised, and the other jobs are stopped. A loop that is left
    early stops it too; `aclose` does so at once, and waits for it.
    """

    def __init__(self, completed: AsCompleted[Any, V]) -> None:
        self._completed = completed
        self._waiting: dict[int, Outcome[Any, V]] = {}
        self._next = 0

    def __repr__(self) -> str:
        return f"<JobMap: {self._completed.run}>"

    def _repr_html_(self) -> str:
        return self._completed._repr_html_()

    def _ipython_display_(self) -> None:
        self._completed._ipython_display_()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> V:
        while self._next not in self._waiting:
            outcome = await self._completed.take()
            if outcome.error is not None:
                await self.aclose()
                outcome.error.add_note(f"input {outcome.index}: {outcome.input!r:.200}")
                raise outcome.error
            self._waiting[outcome.index] = outcome
        outcome = self._waiting.pop(self._next)
        self._next += 1
        self._completed.handed_over()
        return outcome.result

    def __await__(self) -> Generator[Any, Any, list[V]]:
        return _collected(self).__await__()

    async def aclose(self) -> None:
        """Stop the map: jobs that have not ended are stopped, unless it was told to leave them."""
        await self._completed.aclose()


class _Closable(Protocol[V_co]):
    def __aiter__(self) -> AsyncIterator[V_co]: ...

    def aclose(self) -> Awaitable[None]: ...


async def _collected(items: _Closable[V]) -> list[V]:
    async with aclosing(items):
        return [item async for item in items]
