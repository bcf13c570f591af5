"""How long people wait for a simulation; nothing inside one knows of it."""

from __future__ import annotations

from time import perf_counter


class Stopwatch:
    """Runs from its making."""

    def __init__(self) -> None:
        self._since = perf_counter()

    @property
    def seconds(self) -> float:
        return perf_counter() - self._since
