"""Many worlds of whole nodes, one after the other or in several processes."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.simulation.services.run import watch_world
from tests.simulation.stopwatch import Stopwatch
from tests.simulation.tally import Tally


def campaign(first_seed: int, runs: int, *, processes: int = 1) -> Tally:
    """Run the worlds of `runs` seeds from `first_seed`. Events, rows and states are not counted."""
    stopwatch = Stopwatch()
    total = Tally()
    seeds = range(first_seed, first_seed + runs)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for tally in pool.map(_one, seeds) if processes > 1 else map(_one, seeds):
            total.add(tally)
    total.seconds = stopwatch.seconds
    return total


def _one(seed: int) -> Tally:
    report = watch_world(seed)
    return Tally(
        runs=1,
        world_seconds=report.ended,
        struck=Counter(report.faults),
        ends=Counter(report.states),
        violations=[(seed, str(report.violation))] if report.violation else [],
    )
