"""Worlds in which handlers raise and records are refused: all other jobs are as they would be without."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from unittest import mock

from bacalhau_p2p.components import ledger
from bacalhau_p2p.requester import events
from bacalhau_p2p.requester import machine as requester
from tests.simulation.plans.kinds import KINDS
from tests.simulation.worlds.world import Outcome, World

RUNS = range(1, 151)
LEFT_RUNNING = 53
"""The seed of a world in which the end of a job was refused once, and its user never learnt of it."""


def run(seed: int) -> tuple[World, Outcome]:
    world = World(KINDS["internal"](seed))
    return world, world.run()


def test_every_promise_is_kept_for_the_jobs_that_no_fault_concerned():
    struck: Counter[str] = Counter()
    disturbed = jobs = 0
    for seed in RUNS:
        world, outcome = run(seed)
        assert outcome.violation is None, str(outcome.plan)
        struck += outcome.struck
        disturbed += len(world._timeline.disturbed)
        jobs += len(world.plan.jobs)
    assert struck["handler raises"] >= 50
    assert struck["record refused"] >= 50
    assert 50 <= disturbed <= jobs / 2


def test_the_end_of_a_job_is_stored_even_if_its_record_is_refused():
    _, outcome = run(LEFT_RUNNING)
    assert outcome.violation is None


@contextmanager
def never_undone(*undo):
    yield


def test_what_a_handler_that_raised_has_changed_is_noticed():
    with mock.patch.object(ledger, "undone_on_error", never_undone):
        assert any(run(seed)[1].violation for seed in RUNS)


def test_a_machine_that_does_not_hear_of_refused_records_is_noticed():
    handlers = {events.NotStored: lambda machine, event, now: None}
    with mock.patch.dict(requester._HANDLERS, handlers):
        assert run(LEFT_RUNNING)[1].violation is not None
