"""Adds nodes to any world that bid on every job, claim whatever makes them preferred, and then do nothing."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.plans.expand import expand
from tests.simulation.plans.inputs import with_inputs
from tests.simulation.plans.plan import ClaimantPlan, Plan
from tests.simulation.plans.rng import rng_for


def with_claimants(seed: int) -> Plan:
    """The world of this seed, with one to three such nodes, and in every second one with inputs."""
    rng = rng_for(seed, "claimants")
    plan = expand(seed)
    if rng.random() < 0.5:
        plan = with_inputs(plan)
    claimants = tuple(
        ClaimantPlan(
            name=f"x{number}",
            then=rng.choice(("is silent", "is silent", "fails", "hands back")),
            after=rng.choice((0.0, 0.0, 3.0)),
            outlives=rng.random() < 0.3,
            bids=rng.choice((1, 3)),
        )
        for number in range(rng.choice((1, 1, 2, 3)))
    )
    # Not mild: three attempts may all go to them where the others have no room.
    return replace(plan, claimants=claimants, calm=False, mild=False)
