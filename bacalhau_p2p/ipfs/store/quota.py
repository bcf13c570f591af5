"""How many bytes the blocks of a store have, and may have."""

from __future__ import annotations

HIGH_WATER = 0.9
"""The part of the quota above which blocks should be collected."""
LOW_WATER = 0.7
"""The part of the quota down to which they are collected."""


class Quota:
    """Counts the bytes of all blocks against a limit; without a limit, everything fits."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.used = 0

    def fits(self, size: int) -> bool:
        return self.limit is None or self.used + size <= self.limit

    @property
    def above_high_water(self) -> bool:
        return self.limit is not None and self.used > self.limit * HIGH_WATER

    @property
    def above_low_water(self) -> float:
        """Bytes above the low-water mark; 0 or less below it."""
        return 0 if self.limit is None else self.used - self.limit * LOW_WATER
