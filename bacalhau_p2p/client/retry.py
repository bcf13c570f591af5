"""How long to go on asking a node that cannot be reached. Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from bacalhau_p2p.errors import NodeUnavailable

RECONNECT = 60.0
"""Seconds for which a client that waits for a job tries to reach its node again: enough for a restart."""
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Patience:
    """Says how long to pause before each new attempt, and when to give up."""

    def __init__(
        self, limit: float = RECONNECT, *, from_start: bool = True, on_loss: Callable[[], None] = lambda: None
    ) -> None:
        """`limit`: seconds from the first failure to the last attempt.

        Unless `from_start`, a node that has not responded yet is not waited for. `on_loss` is called once
        whenever the node is away for more than a moment.
        """
        self._limit = limit
        self._waits = from_start
        self._on_loss = on_loss
        self._failures = 0
        self._since = inf
        self._pause = _FIRST_PAUSE

    def succeeded(self) -> None:
        """The node has responded: the next failure is a first one."""
        self._waits = True
        self._failures, self._since, self._pause = 0, inf, _FIRST_PAUSE

    def pause(self, error: NodeUnavailable, *, now: float) -> float:
        """Seconds to pause after this failure. Raises the error when the time is over."""
        self._since = min(self._since, now)
        if not self._waits or now - self._since >= self._limit:
            raise error
        self._failures += 1
        if self._failures == 2:  # one connection that breaks is no news
            self._on_loss()
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return min(pause, self._since + self._limit - now)
