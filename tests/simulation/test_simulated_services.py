"""Whole nodes under a seeded clock and scheduler: every promise holds, and a broken part is noticed."""

from __future__ import annotations

from unittest import mock

import pytest

from bacalhau_p2p.bprotocol.delivery import Delivery
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.requester.service import RequesterService
from bacalhau_p2p.testing.simulation.services import JOBS, run_world
from bacalhau_p2p.testing.simulation.violation import Violation


@pytest.mark.parametrize("seed", range(1, 13))
def test_every_promise_holds(seed):
    assert sum(run_world(seed).states.values()) == JOBS


def test_a_seed_tells_the_same_story_again():
    assert run_world(2) == run_world(2)
    assert run_world(2).digest != run_world(3).digest


def forget_everything(self):
    """In place of `RequesterService.resume`."""


def never_repeat(self, now):
    """In place of `Delivery.repeats`."""
    self._heap.clear()
    return []


def never_release(self, execution_id):
    """In place of `Capacity.release`."""


@pytest.mark.parametrize(
    ("where", "name", "broken", "promise"),
    [
        (RequesterService, "resume", forget_everything, "every job ends"),
        (Delivery, "repeats", never_repeat, "nothing is left"),
        (Capacity, "release", never_release, "nothing is left"),
    ],
    ids=["forget everything", "never repeat", "never release"],
)
def test_a_broken_part_is_noticed(where, name, broken, promise):
    with mock.patch.object(where, name, broken):
        assert promise in {broken_promise(seed) for seed in range(1, 4)}


def broken_promise(seed):
    """Which promise this world broke, if any."""
    try:
        run_world(seed)
    except Violation as violation:
        return violation.promise
    return None
