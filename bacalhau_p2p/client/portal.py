"""Runs async calls for blocking callers, on an event loop in a thread of its own."""

from __future__ import annotations

import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import AbstractContextManager, ExitStack
from threading import Lock
from typing import Any, Protocol, TypeVar

import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_END: Any = object()


class AsyncItems(Protocol[_T_co]):
    """An async iterator that can be closed."""

    def __anext__(self) -> Awaitable[_T_co]: ...

    def __aiter__(self) -> AsyncIterator[_T_co]: ...

    def aclose(self) -> Awaitable[None]: ...


class Portal:
    """Starts its thread with the first call. May be used from any thread of the process that made it."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = Lock()
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._closed = False

    def call(self, function: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
        """The result of an async function. Ctrl-C cancels it."""
        future = self._started().start_task_soon(function, *arguments)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncItems[_T]) -> Iterator[_T]:
        """The items of an async iterator, which is closed at the end or when the loop is left."""
        try:
            while (item := self.call(anext, items, _END)) is not _END:
                yield item
        finally:
            if not self._closed:
                self.call(items.aclose)

    def enter(self, context: Callable[[], Any]) -> AbstractContextManager[Any]:
        """An async context manager as a blocking one."""
        return self._started().wrap_async_context_manager(context())

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """End the thread after a last call. Does nothing when it does not run."""
        with self._lock:
            running, self._closed = self._portal is not None and not self._closed, True
        if running and self._process == os.getpid():
            try:
                assert self._portal is not None
                self._portal.call(last)
            finally:
                self._stack.close()

    def _started(self) -> BlockingPortal:
        if self._process != os.getpid():
            raise RuntimeError("this client was made in another process: make one in each process")
        with self._lock:
            if self._closed:
                raise RuntimeError("this client is closed")
            if self._portal is None:
                self._portal = self._stack.enter_context(start_blocking_portal(name="bacalhau_p2p client"))
            return self._portal


def in_thread(function: Callable[[_T], Any]) -> Callable[[_T], Awaitable[Any]]:
    """A blocking function as an async one, so that it may call the client in turn."""

    async def called(item: _T) -> Any:
        return await anyio.to_thread.run_sync(function, item)

    return called


async def items_of(items: Iterable[_T]) -> AsyncGenerator[_T, None]:
    """The items of a blocking iterator, each made in a thread."""
    iterator = iter(items)
    while (item := await anyio.to_thread.run_sync(next, iterator, _END)) is not _END:
        yield item
