"""Runs the worlds of whole nodes. A seed always gives the same story.

A world is real nodes over the transport in memory, with real SQLite files. That is fewer worlds a second than
with machines alone, and shows the code around them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio

from tests.simulation.checks.violation import Violation
from tests.simulation.services.deterministic import deterministic, fast_folder
from tests.simulation.services.story import Report
from tests.simulation.services.world import World


def watch_world(seed: int) -> Report:
    """The world of this seed, with the promise that it broke, if any.

    A fault of the code arrives as an ExceptionGroup, with a note of the seed.
    """
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder, deterministic(seed) as clock:
        world = World(seed, Path(folder))
        violation = None
        try:
            with world.story.with_states():
                trio.run(world.run, clock=clock)
        except BaseExceptionGroup as group:
            if (broken := group.subgroup(Violation)) is None:
                group.add_note(f"in the world of seed {seed}")
                raise
            violation = _first(broken)
        return world.story.report(seed, clock.current_time(), violation)


def run_world(seed: int) -> Report:
    """As `watch_world`, but raises the Violation, with the seed in its text."""
    report = watch_world(seed)
    if report.violation is not None:
        raise Violation(report.violation.promise, f"seed {seed}: {report.violation.what}")
    return report


def _first(group: BaseExceptionGroup[BaseException]) -> Violation:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Violation)
    return error
