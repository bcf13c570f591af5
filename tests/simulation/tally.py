"""What many worlds showed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Figures that add up."""

    runs: int = 0
    events: int = 0
    seconds: float = 0.0
    """Of real time."""
    world_seconds: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, str]] = field(default_factory=list)
    """Seeds, and which promise was broken how."""

    def add(self, other: Tally) -> None:
        self.runs += other.runs
        self.events += other.events
        self.world_seconds += other.world_seconds
        self.struck += other.struck
        self.rows += other.rows
        self.states += other.states
        self.ends += other.ends
        self.violations += other.violations
