"""How many connections the proxies of jobs serve at a time: some for each job, and others that all share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bacalhau_p2p.runtime.events import BroadcastEvent

MAX_CONNECTIONS = 32
"""Connections of one job at a time; further ones wait to be accepted."""
GUARANTEED_CONNECTIONS = 4
"""Those of one job that do not depend on how many the others have."""
MAX_CONNECTIONS_OF_ALL = 128
"""Connections of all jobs beyond those that are guaranteed."""


class SharedConnections:
    """The connections that the proxies of one node share."""

    def __init__(self, total: int = MAX_CONNECTIONS_OF_ALL) -> None:
        self.left = total
        self.ended = BroadcastEvent()
        """A connection of any job has ended."""


class JobConnections:
    """The connections of one job. The first GUARANTEED_CONNECTIONS, whichever these are, are its own."""

    def __init__(self, shared: SharedConnections) -> None:
        self._shared = shared
        self._count = 0

    async def room(self) -> None:
        """Returns when this job may have one more. Does not take it."""
        while not self._has_room():
            await self._shared.ended.wait()

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count a connection, for which there is room, for the length of the block."""
        self._shared.left -= self._is_shared()
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._shared.left += self._is_shared()
            self._shared.ended.fire()

    def _has_room(self) -> bool:
        return self._count < MAX_CONNECTIONS and (not self._is_shared() or self._shared.left > 0)

    def _is_shared(self) -> bool:
        """Whether the connection beyond those that there are is one of the shared ones."""
        return self._count >= GUARANTEED_CONNECTIONS
