"""Whole nodes under a seeded clock and scheduler: every promise holds, and a broken part is noticed."""

from __future__ import annotations

import re
from unittest import mock

import pytest

from bacalhau_p2p.bprotocol.delivery import Delivery
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.requester.service import RequesterService
from tests.simulation.__main__ import main
from tests.simulation.checks.violation import Violation
from tests.simulation.services.run import run_world
from tests.simulation.services.world import JOBS


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


def test_the_command_tells_the_story_of_one_world(capsys):
    assert main(["--services", "--seed", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].endswith("all is well")
    moved = [line for line in printed if " moved " in line]
    assert {"Running", "Proposed", "Completed"} <= {line.split("state='")[1].split("'")[0] for line in moved}
    assert sum(" ended " in line for line in printed) == JOBS


def test_the_command_reports_on_many_worlds(capsys):
    assert main(["--services", "--runs", "2", "--first-seed", "3", "--processes", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "first seed  3"
    assert printed[1].startswith("runs        2 in ")
    assert sum(int(count) for count in re.findall(r"\b(?:Completed|Failed) (\d+)", printed[3])) == 2 * JOBS
    assert printed[-1] == "violations  0"


def test_the_command_says_which_world_broke_which_promise(capsys):
    with mock.patch.object(Capacity, "release", never_release):
        assert main(["--services", "--seed", "2"]) == 1
        assert "nothing is left: " in capsys.readouterr().out.splitlines()[-1]
        assert main(["--services", "--runs", "1", "--first-seed", "2", "--processes", "1"]) == 1
        *_, count, which = capsys.readouterr().out.splitlines()
    assert count == "violations  1"
    assert "scripts/simulate --services --seed 2: nothing is left: " in which


def test_options_for_machines_alone_are_refused(capsys):
    with pytest.raises(SystemExit) as status:
        main(["--services", "--seed", "2", "--shrink"])
    assert status.value.code == 2
    assert "--shrink" in capsys.readouterr().err


def broken_promise(seed):
    """Which promise this world broke, if any."""
    try:
        run_world(seed)
    except Violation as violation:
        return violation.promise
    return None
