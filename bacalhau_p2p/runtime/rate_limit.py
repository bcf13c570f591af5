"""A token bucket: how often something may happen, on average and in a burst. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """`rate` tokens come back each second, up to `burst`; a new bucket is full."""

    rate: float
    burst: float
    _tokens: float = -1.0
    _updated: float = 0.0

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take so many tokens, if there are as many. `now` in seconds; a clock that goes back adds none."""
        if self._tokens < 0:
            self._tokens, self._updated = self.burst, now
        elapsed = max(0.0, now - self._updated)
        self._updated = max(self._updated, now)
        self._tokens = min(self.burst, self._tokens + elapsed * self.rate)
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True
