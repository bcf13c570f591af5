"""Every run of the suite also tries fresh seeds, so that nothing is fitted to known ones.

The terminal summary prints the seeds. Add a seed that fails to `regressions.txt`.
"""

from __future__ import annotations

import pytest

from tests.simulation.plans.kinds import KINDS
from tests.simulation.power.cuts import cut
from tests.simulation.power.recording import record
from tests.simulation.services.run import run_world
from tests.simulation.worlds.campaign import campaign
from tests.support.fresh_seeds import fresh_seed

MACHINES, INPUTS, DIVIDED, LARGE, MANY, INTERNAL, RETURNING, CLAIMANTS = 150, 25, 25, 15, 15, 25, 25, 25
SERVICES, CUTS = 2, 60
"""How many worlds of each kind, and how many power cuts."""


@pytest.fixture
def fresh(record_property):
    """A new seed; `record_property` has it printed at the end."""

    def draw(what, runs=1):
        seed = fresh_seed(what)
        record_property("fresh seeds", f"{what} from {seed}" if runs > 1 else f"{what} {seed}")
        return seed

    return draw


@pytest.mark.parametrize(
    ("kind", "runs"),
    [
        ("any", MACHINES),
        ("inputs", INPUTS),
        ("divided", DIVIDED),
        ("large", LARGE),
        ("many", MANY),
        ("internal", INTERNAL),
        ("returning", RETURNING),
        ("claimants", CLAIMANTS),
    ],
)
def test_every_promise_is_kept_in_fresh_worlds(fresh, kind, runs):
    command = f"scripts/simulate --kind {kind}"
    tally = campaign(fresh(command, runs), runs, kind=kind)
    assert [f"{command} --seed {seed}: {what}" for seed, what in tally.violations] == []


def test_there_are_fresh_worlds_of_every_kind():
    (marker,) = test_every_promise_is_kept_in_fresh_worlds.pytestmark
    assert {kind for kind, _ in marker.args[1]} == set(KINDS)


def test_every_promise_is_kept_by_whole_nodes_in_fresh_worlds(fresh):
    first = fresh("scripts/simulate --services", SERVICES)
    for seed in range(first, first + SERVICES):
        run_world(seed)


def test_every_promise_is_kept_after_fresh_power_cuts(fresh, tmp_path):
    seed = fresh("tests.simulation.power")
    findings = cut(record(seed, tmp_path / "work"), CUTS, resume=2)
    assert findings.cuts == CUTS
