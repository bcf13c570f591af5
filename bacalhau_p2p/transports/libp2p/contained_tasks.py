"""Tasks of py-libp2p's services, started so that a fault in one ends that task only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.tools.anyio_service import LifecycleError

from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.libp2p.yamux.connection import YamuxConnection

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for a connection to close in good order before its socket is closed."""


class ContainedTasks:
    """Replaces the manager of a service.

    py-libp2p 0.8.1 cancels the whole service, and with it the host, when any of its tasks fails. It also
    walks its whole tree of tasks to start one (gossip starts one per message) and limits a task to 1,000
    children. These tasks run in the manager's nursery, outside of that tree.
    """

    def __init__(self, manager: Any, counters: Counter[str]) -> None:
        self._manager = manager
        self._counters = counters

    def run_task(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a task; an exception in it is counted as `task_faults`."""
        if not self._manager.is_running:
            raise LifecycleError("the service has ended")

        async def contained() -> None:
            owner = getattr(function, "__self__", None)
            with FaultBarrier(self._counters, "task_faults", f"task {function!r}") as barrier:
                await function(*args)
            if barrier.fault is not None and isinstance(owner, YamuxConnection | SwarmConn):
                # A connection without the task that reads it, or accepts its streams, hangs for ever.
                await abort(owner if isinstance(owner, YamuxConnection) else owner.muxed_conn)

        self._manager._task_nursery.start_soon(contained)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


async def abort(muxed_conn: Any) -> None:
    """Close the socket of a connection and let py-libp2p clean up after it.

    A normal close writes, so it would wait for ever for a peer that reads nothing.
    """
    with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_TIMEOUT):
        await muxed_conn.abort()
