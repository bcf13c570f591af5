"""Token buckets: how often something may happen, on average and in a burst. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)


@dataclass(slots=True)
class TokenBucket:
    """`rate` tokens come back each second, up to `burst`; a new bucket is full."""

    rate: float
    burst: float
    _tokens: float = 0.0
    _updated: float = -inf

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take so many tokens, if there are as many. `now` in seconds; a clock that goes back adds none."""
        tokens = self._fill(now)
        if tokens < amount:
            return False
        self._tokens = tokens - amount
        return True

    def spend(self, now: float, amount: float) -> None:
        """Take so many tokens, also if there are fewer: the debt, at most one burst, is paid off first."""
        self._tokens = max(self._fill(now) - amount, -self.burst)

    @property
    def in_debt(self) -> bool:
        """Whether there was a debt when it was used last; without one there is none now."""
        return self._tokens < 0

    def debt_lasts(self, now: float) -> float:
        """Seconds until there are tokens again; 0 if there is no debt."""
        return max(0.0, -self._fill(now) / self.rate)

    def _fill(self, now: float) -> float:
        if self._updated == -inf:
            self._tokens, self._updated = self.burst, now
        elif now > self._updated:
            self._tokens = min(self._tokens + (now - self._updated) * self.rate, self.burst)
            self._updated = now
        return self._tokens


class RateLimits(Generic[_K]):
    """A token bucket for each key, such as a peer. All buckets have the same rate and burst.

    With more than `max_keys` keys all buckets are dropped, so keys made up by strangers take no memory.
    """

    def __init__(self, rate: float, burst: float, *, max_keys: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._max_keys = max_keys
        self._buckets: dict[_K, TokenBucket] = {}

    def take(self, key: _K, now: float) -> bool:
        """Take one token from the bucket of this key, if it has one."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._max_keys:
                self._buckets.clear()
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst)
        return bucket.take(now)

    def forget(self, key: _K) -> None:
        """Drop the bucket of this key; the next one starts full."""
        self._buckets.pop(key, None)
