"""Calls that run in tasks of their own, so that cancelling a caller does not interrupt them.

A call into py-libp2p that is cancelled within a write would ruin the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, TypeVarTuple

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class _Call(Generic[_T]):
    """A call that runs, and its outcome."""

    value: _T

    def __init__(self) -> None:
        self.done = trio.Event()
        self.waiting = 0
        self.fault: PeerUnreachable | None = PeerUnreachable("the transport was closed")

    async def run(self, call: Callable[[*_Args], Awaitable[_T]], *args: *_Args) -> None:
        try:
            self.value = await call(*args)
            self.fault = None
        except PeerUnreachable as fault:
            self.fault = fault
        finally:
            self.done.set()

    async def wait(self) -> _T:
        """The value of the call. Raises PeerUnreachable."""
        self.waiting += 1
        try:
            await self.done.wait()
        except trio.Cancelled:
            self.waiting -= 1
            raise
        if self.fault is not None:
            raise PeerUnreachable(str(self.fault)) from self.fault
        return self.value


class DetachedCalls:
    """Runs calls in `nursery`. Only PeerUnreachable may escape from them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def run(
        self,
        call: Callable[[*_Args], Awaitable[_T]],
        *args: *_Args,
        discard: Callable[[_T], Awaitable[object]] | None = None,
    ) -> _T:
        """The value of a call. Raises PeerUnreachable.

        Cancelled: the call goes on, and `discard` takes its value.
        """
        running = _Call[_T]()

        async def run() -> None:
            await running.run(call, *args)
            if discard is not None and not running.waiting and running.fault is None:
                await discard(running.value)

        self._nursery.start_soon(run)
        return await running.wait()


class SharedCalls:
    """Runs one call per peer at a time in `nursery`, for all callers that need it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._running: dict[PeerID, _Call[None]] = {}

    async def run(self, peer: PeerID, call: Callable[[*_Args], Awaitable[None]], *args: *_Args) -> None:
        """Wait for the running call of this peer, or start `call`. Raises PeerUnreachable.

        Cancelled: the call goes on for the other callers.
        """
        running = self._running.get(peer)
        if running is None:
            running = self._running[peer] = _Call[None]()
            self._nursery.start_soon(self._run, peer, running, call, args)
        await running.wait()

    async def _run(
        self,
        peer: PeerID,
        running: _Call[None],
        call: Callable[[*_Args], Awaitable[None]],
        args: tuple[*_Args],
    ) -> None:
        try:
            await running.run(call, *args)
        finally:
            del self._running[peer]
