"""Tasks that outlive the call that started them, on trio and asyncio.

A loop such as `async for result in client.map(...)` has work going on while its body runs, and the body may
leave at any time. A nursery cannot be open there: it would have to be closed by the same task in order.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

_running: set[asyncio.Task[None]] = set()
"""asyncio itself keeps no reference to a task."""


class DetachedTask:
    """A call that runs by itself. It must not raise; whoever starts it cancels it or waits for it."""

    def __init__(self, function: Callable[[], Awaitable[None]]) -> None:
        self._function = function
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._cancel_soon = _start(self._run, self._scope.cancel)

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._function()
        finally:
            self._ended.set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def cancel_soon(self) -> None:
        """Cancel it, without waiting. May be called while garbage is collected, and from any thread."""
        self._cancel_soon()

    async def cancel(self) -> None:
        """Cancel it, and wait until it has cleaned up, also when the caller is cancelled."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._ended.wait()


class DetachedTasks:
    """The detached tasks of one owner, which ends them."""

    def __init__(self) -> None:
        self._tasks: set[DetachedTask] = set()

    def start(self, function: Callable[[], Awaitable[None]]) -> DetachedTask:
        self._tasks = {task for task in self._tasks if not task.ended}
        task = DetachedTask(function)
        self._tasks.add(task)
        return task

    async def aclose(self) -> None:
        """Cancel all of them, and wait until they have cleaned up."""
        for task in self._tasks:
            task.cancel_soon()
        for task in self._tasks:
            await task.cancel()


def _start(run: Callable[[], Awaitable[None]], cancel: Callable[[], None]) -> Callable[[], None]:
    """Start a task; the result asks its event loop for its cancellation."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        token = trio.lowlevel.current_trio_token()
        trio.lowlevel.spawn_system_task(run)

        def cancel_soon() -> None:
            with suppress(trio.RunFinishedError):  # then the task has ended too
                token.run_sync_soon(cancel)

        return cancel_soon
    loop = asyncio.get_running_loop()
    task = loop.create_task(_as_coroutine(run))
    _running.add(task)
    task.add_done_callback(_running.discard)

    def cancel_soon_on_asyncio() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(cancel)

    return cancel_soon_on_asyncio


async def _as_coroutine(run: Callable[[], Awaitable[None]]) -> None:
    await run()
