"""Blocking calls in worker threads, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class Threads:
    """Up to so many threads at a time, for one owner. Further calls wait for their turn."""

    def __init__(self, limit: float) -> None:
        """`limit` may be `math.inf`."""
        self._limiter = trio.CapacityLimiter(limit)

    async def run(self, call: Callable[[*_Args], _T], *args: *_Args) -> _T:
        """What `call(*args)` returns or raises. Cancelled while it waits for a thread: it is not called;
        cancelled later: it runs to its end first."""
        return await trio.to_thread.run_sync(call, *args, limiter=self._limiter)

    async def run_abandonable(self, call: Callable[[*_Args], _T], *args: *_Args) -> _T:
        """As `run`. Cancelled: returns at once; the call continues, and keeps its thread."""
        return await trio.to_thread.run_sync(call, *args, abandon_on_cancel=True, limiter=self._limiter)
