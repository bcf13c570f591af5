"""Worlds in which nodes themselves are at fault: a handler raises, or a record cannot be stored."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.plans.plan import HandlerFault, Plan, RecordFault
from tests.simulation.plans.rng import rng_for


def with_internal_faults(plan: Plan) -> Plan:
    """The same world, in which some events and records strike such faults. What a plan promises about every
    job holds for those that none of them concerned."""
    rng = rng_for(plan.seed, "internal faults")
    names = [node.name for node in plan.nodes]
    faults = plan.faults
    if rng.random() < 0.7:
        faults += tuple(
            HandlerFault(node=rng.choice(names), number=rng.randint(1, rng.choice((20, 200))))
            for _ in range(rng.randint(1, 4))
        )
    if faults == plan.faults or rng.random() < 0.5:
        faults += tuple(
            RecordFault(node=rng.choice(names), number=rng.randint(1, rng.choice((10, 40))))
            for _ in range(rng.randint(1, 4))
        )
    return replace(plan, faults=faults, calm=False, returning=False)
