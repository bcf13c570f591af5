"""Many worlds, one after the other or in several processes."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from tests.simulation.plans.kinds import KINDS
from tests.simulation.plans.plan import Plan
from tests.simulation.stopwatch import Stopwatch
from tests.simulation.tally import Tally
from tests.simulation.worlds.coverage import counted_rows
from tests.simulation.worlds.world import World

SHARE = 50
"""Seeds that are given to a process at a time."""


def campaign(
    first_seed: int, runs: int, *, kind: str = "any", processes: int = 1, stop_at_first: bool = False
) -> Tally:
    """Run the worlds of `runs` seeds from `first_seed`; several processes share them."""
    stopwatch = Stopwatch()
    if processes <= 1:
        total = _worlds(range(first_seed, first_seed + runs), kind=kind, stop_at_first=stop_at_first)
    else:
        total = Tally()
        end = first_seed + runs
        shares = [range(start, min(start + SHARE, end)) for start in range(first_seed, end, SHARE)]
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for tally in pool.map(partial(_worlds, kind=kind), shares):
                total.add(tally)
    total.seconds = stopwatch.seconds
    return total


def _worlds(seeds: range, *, kind: str, stop_at_first: bool = False) -> Tally:
    tally = Tally()
    with counted_rows() as rows:
        for seed in seeds:
            _one(KINDS[kind](seed), tally)
            if stop_at_first and tally.violations:
                break
    tally.rows = rows
    return tally


def _one(plan: Plan, tally: Tally) -> None:
    world = World(plan)
    outcome = world.run()
    tally.runs += 1
    tally.events += outcome.events
    tally.world_seconds += outcome.ended
    tally.struck += outcome.struck
    tally.states += world.watch.states
    tally.ends += Counter(world.users.ends())
    if outcome.violation is not None:
        tally.violations.append((plan.seed, str(outcome.violation)))
