"""How long to go on asking a node that cannot be reached. Pure."""

from __future__ import annotations

from math import inf

from bacalhau_p2p.errors import NodeUnavailable

RECONNECT = 60.0
"""Seconds for which a client that waits for a job tries to reach its node again: enough for a restart."""
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Patience:
    """Says how long to pause before each new attempt, and when to give up."""

    def __init__(self, limit: float = RECONNECT) -> None:
        """`limit`: seconds from the first failure to the last attempt."""
        self._limit = limit
        self._since = inf
        self._pause = _FIRST_PAUSE

    def succeeded(self) -> None:
        """The node has responded: the next failure is a first one."""
        self._since, self._pause = inf, _FIRST_PAUSE

    def pause(self, error: NodeUnavailable, *, now: float) -> float:
        """Seconds to pause after this failure. Raises the error when the time is over."""
        self._since = min(self._since, now)
        if now - self._since >= self._limit:
            raise error
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return min(pause, self._since + self._limit - now)
