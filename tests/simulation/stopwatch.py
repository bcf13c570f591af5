"""Real time, for reports. Nothing inside a simulation reads it."""

from __future__ import annotations

from time import perf_counter


class Stopwatch:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._since = perf_counter()

    @property
    def seconds(self) -> float:
        return perf_counter() - self._since
