"""Gives any world more nodes than a requester asks at once: some of those that are connected come first."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.plans.plan import NodePlan, Plan, StepFault
from tests.simulation.plans.rng import rng_for

MORE = 10


def with_many_nodes(plan: Plan) -> Plan:
    """The plan with `MORE` nodes more. Unless it is gentle, some of them fail once or have little room."""
    rng = rng_for(plan.seed, "many")
    gentle = plan.calm or plan.mild
    nodes = tuple(
        NodePlan(name=f"m{number}", cpu=8.0 if gentle else rng.choice((0.5, 1.0, 2.0, 8.0)))
        for number in range(MORE)
    )
    faults = (
        ()
        if gentle
        else tuple(
            StepFault(node=node.name, step=rng.choice(("prepare", "run")), number=1, outcome="retryable")
            for node in nodes
            if rng.random() < 0.3
        )
    )
    # Not calm: which nodes bid, and how many, is not known beforehand.
    return replace(plan, nodes=plan.nodes + nodes, faults=plan.faults + faults, calm=False)
