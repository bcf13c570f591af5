"""Many worlds, one after the other or in several processes, and what they add up to."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from tests.simulation.plans.expand import expand
from tests.simulation.worlds.coverage import counted_rows
from tests.simulation.worlds.stopwatch import Stopwatch
from tests.simulation.worlds.world import World

SHARE = 50
"""Seeds that a process is given at a time."""


@dataclass(slots=True)
class Tally:
    """What some worlds showed."""

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


def campaign(first_seed: int, runs: int, *, processes: int = 1, stop_at_first: bool = False) -> Tally:
    """Run the worlds of `runs` seeds from `first_seed`; several processes share them."""
    stopwatch = Stopwatch()
    if processes <= 1:
        total = _worlds(range(first_seed, first_seed + runs), stop_at_first=stop_at_first)
    else:
        total = Tally()
        end = first_seed + runs
        shares = [range(start, min(start + SHARE, end)) for start in range(first_seed, end, SHARE)]
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for tally in pool.map(_worlds, shares):
                total.add(tally)
    total.seconds = stopwatch.seconds
    return total


def campaign_of_services(first_seed: int, runs: int, *, processes: int = 1) -> Tally:
    """The same with worlds of whole nodes; events, rows and states are not counted."""
    stopwatch = Stopwatch()
    total = Tally()
    seeds = range(first_seed, first_seed + runs)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for tally in pool.map(_one_of_services, seeds) if processes > 1 else map(_one_of_services, seeds):
            total.add(tally)
    total.seconds = stopwatch.seconds
    return total


def _one_of_services(seed: int) -> Tally:
    from tests.simulation.services.world import watch_world  # imports that machines alone spare

    report = watch_world(seed)
    violations = [(seed, str(report.violation))] if report.violation else []
    return Tally(
        runs=1,
        world_seconds=report.ended,
        struck=Counter(report.faults),
        ends=Counter(report.states),
        violations=violations,
    )


def _worlds(seeds: range, *, stop_at_first: bool = False) -> Tally:
    tally = Tally()
    with counted_rows() as rows:
        for seed in seeds:
            _one(seed, tally)
            if stop_at_first and tally.violations:
                break
    tally.rows = rows
    return tally


def _one(seed: int, tally: Tally) -> None:
    world = World(expand(seed))
    outcome = world.run()
    tally.runs += 1
    tally.events += outcome.events
    tally.world_seconds += outcome.ended
    tally.struck += outcome.struck
    tally.states += world.watch.states
    tally.ends += Counter(world.users.ends())
    if outcome.violation is not None:
        tally.violations.append((seed, str(outcome.violation)))
