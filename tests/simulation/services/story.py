"""What happens in a world of whole nodes, for people to read and for digests to compare."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.simulation.checks.violation import Violation

_SERVICES = ("bacalhau_p2p.requester.service", "bacalhau_p2p.compute.service")

node_name: ContextVar[str] = ContextVar("node_name", default="world")
"""The node whose tasks run in this context."""


@dataclass(slots=True)
class Report:
    """One world: how its jobs ended, what was done to it, and a digest of its story."""

    seed: int
    states: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    ended: float = 0.0
    """Seconds of the world's time that it took."""
    story: Sequence[str] = field(default=(), repr=False)
    """Line by line: when, and what."""
    violation: Violation | None = None


class Story:
    """Events in their order, with their times."""

    def __init__(self) -> None:
        self._events: list[tuple[Any, ...]] = []
        self._faults: Counter[str] = Counter()

    def add(self, *what: Any) -> None:
        self._events.append((round(trio.current_time(), 3), *what))

    def add_fault(self, fault: str, *what: Any) -> None:
        self._faults[fault] += 1
        self.add(fault, *what)

    def report(self, seed: int, ended: float, violation: Violation | None) -> Report:
        states = Counter(rest[1] for _, kind, *rest in self._events if kind == "ended")
        digest = hashlib.sha256(repr(self._events).encode()).hexdigest()[:16]
        lines = [
            f"{when:9.3f}  {what:<10} {'  '.join(map(str, rest))}".rstrip()
            for when, what, *rest in self._events
        ]
        lines.append(f"{ended:9.3f}  {violation or 'all is well'}")
        return Report(seed, dict(states), dict(self._faults), digest, ended, lines, violation)

    @contextmanager
    def with_states(self) -> Iterator[None]:
        """During the block every job and execution that changes its state, by what the services log, is part
        of the story."""
        handler, loggers = _StateHandler(self), [logging.getLogger(name) for name in _SERVICES]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.removeHandler(handler)
                logger.setLevel(level)


class _StateHandler(logging.Handler):
    def __init__(self, story: Story) -> None:
        super().__init__(logging.INFO)
        self._story = story

    def emit(self, record: logging.LogRecord) -> None:
        event, _, rest = record.getMessage().partition(" ")
        if event in ("event='job'", "event='execution'"):
            self._story.add("moved", node_name.get(), rest)
