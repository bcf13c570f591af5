"""Tasks that end with a block or a call, and errors that leave nurseries unwrapped."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TypeVar

import trio

_T = TypeVar("_T")


class CarriedError:
    """Carries an error out of nurseries, which would wrap it in an ExceptionGroup.

    error = CarriedError()
    async with trio.open_nursery():
        with error.captured():
            ...
    error.raise_if_captured()
    """

    def __init__(self) -> None:
        self._error: BaseException | None = None

    @contextmanager
    def captured(self) -> Iterator[None]:
        """End the block at an error and keep it. Cancellation passes, also if a nursery has wrapped it."""
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException as error:
            if _has_cancelled(error):
                raise
            self._error = error

    def raise_if_captured(self) -> None:
        """Raise the error as it was raised in the block."""
        if self._error is not None:
            raise self._error


def _has_cancelled(error: BaseException) -> bool:
    """A nursery inside the block wraps even a lone Cancelled in a group."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(trio.Cancelled) is not None
    return isinstance(error, trio.Cancelled)


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks beside the block. They are cancelled when the block ends.

    What the block raises comes out as it is, so that callers can catch it by its type. An exception in a task
    ends the block and comes out in an ExceptionGroup.
    """
    error = CarriedError()
    async with trio.open_nursery() as nursery:
        with error.captured():
            yield nursery
        nursery.cancel_scope.cancel()
    error.raise_if_captured()


async def all_or_first_fault(
    steps: Sequence[Callable[[], Awaitable[_T]]], *faults: type[Exception]
) -> list[_T]:
    """Run steps concurrently. Returns their results, in the order of the steps.

    The first of these `faults` cancels the other steps and comes out as it is. Any other exception comes out
    in an ExceptionGroup.
    """
    results: dict[int, _T] = {}
    failure: Exception | None = None

    async def take(index: int, step: Callable[[], Awaitable[_T]]) -> None:
        nonlocal failure
        try:
            results[index] = await step()
        except faults as error:
            failure = failure or error
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for index, step in enumerate(steps):
            nursery.start_soon(take, index, step)
    if failure is not None:
        raise failure
    return [results[index] for index in range(len(steps))]


class ReadAhead(AsyncIterator[_T]):
    """The items of `read_ahead`. Iterate over it once."""

    def __init__(self, source: AsyncGenerator[_T, None], limit: int) -> None:
        self._source = source
        self._send, self._receive = trio.open_memory_channel[_T](limit)
        self._failure: Exception | None = None

    async def run(self) -> None:
        async with self._send, aclosing(self._source):
            try:
                async for item in self._source:
                    await self._send.send(item)
            except Exception as error:  # noqa: BLE001 - raised again after the items before it
                self._failure = error

    async def __anext__(self) -> _T:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            failure = self._failure or StopAsyncIteration()
        raise failure


@asynccontextmanager
async def read_ahead(source: AsyncGenerator[_T, None], limit: int) -> AsyncIterator[ReadAhead[_T]]:
    """A block in which up to `limit` items of `source` are made while earlier ones are used.

    What `source` raises is raised after its last item. When the block ends, `source` is cancelled and closed.
    """
    items = ReadAhead(source, limit)
    async with background() as nursery:
        nursery.start_soon(items.run)
        yield items
