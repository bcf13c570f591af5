"""Networks with nodes that bid on every job and do nothing of use with it: others are chosen before them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.simulation.mutants import MUTANTS_OF_CLAIMANTS, mutated
from tests.simulation.plans.kinds import KINDS
from tests.simulation.plans.plan import ClaimantPlan, JobPlan, NodePlan, Plan
from tests.simulation.worlds.world import World

WORLDS = range(1, 61)
LINE = Plan(
    seed=1,
    nodes=(
        NodePlan(name="r0", requester=True, compute=False),
        *(NodePlan(name=f"c{number}", cpu=64.0) for number in (1, 2, 3)),
    ),
    claimants=(ClaimantPlan(name="x0", then="is silent"),),
    jobs=tuple(
        JobPlan(name=f"j{number}", requester="r0", at=3.0 + 30 * number, prepare=0.0, run=1.0)
        for number in range(20)
    ),
    heal_at=700.0,
)
"""Twenty jobs, one every half a minute, and one node that is silent whatever it is given."""


def test_every_promise_is_kept_among_nodes_that_waste_time():
    struck: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for seed in WORLDS:
        world = World(KINDS["claimants"](seed))
        outcome = world.run()
        assert outcome.violation is None, f"{outcome.violation}\n{outcome.plan}"
        struck += outcome.struck
        ends += Counter(world.users.ends())
    for then in ("is silent", "fails", "hands back"):
        assert struck[f"accepted one that {then}"] >= 20
    assert ends["Completed"] >= 60


@pytest.mark.parametrize(("then", "most"), [("is silent", 5), ("fails", 8), ("hands back", 8)])
def test_such_a_node_gets_few_jobs_and_every_job_completes(then, most):
    plan = replace(LINE, claimants=(ClaimantPlan(name="x0", then=then),))
    world = World(plan)
    outcome = world.run()
    assert outcome.violation is None
    assert Counter(world.users.ends()) == {"Completed": 20}
    assert 0 < outcome.struck[f"accepted one that {then}"] <= most


@pytest.mark.parametrize("name", MUTANTS_OF_CLAIMANTS)
def test_each_mutant_is_noticed(name):
    with mutated(name):
        assert any(World(KINDS["claimants"](seed)).run().violation for seed in range(1, 40))
