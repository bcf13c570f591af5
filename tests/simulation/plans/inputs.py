"""Gives the jobs of any world inputs: nodes inspect them before they bid, and disk space is short."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.plans.plan import Fault, Plan, StepFault
from tests.simulation.plans.rng import rng_for

_GB = 1000**3


def with_inputs(plan: Plan) -> Plan:
    """The plan with inputs for most of its jobs, of up to 4 GB. Each fits on any idle node.

    Inspections take up to four seconds, and some fail or hang. One node in three has all inputs.
    """
    rng = rng_for(plan.seed, "inputs")
    jobs = tuple(
        replace(
            job,
            inspection=rng.choice((0.0, 0.01, 0.2, 1.0, 4.0)) if rng.random() < 0.8 else None,
            input_disk=rng.randint(0, 4) * _GB,
        )
        for job in plan.jobs
    )
    nodes = tuple(
        replace(node, disk=rng.choice((5 * _GB, 8 * _GB, 2**42)), holds_data=rng.random() < 0.3)
        for node in plan.nodes
    )
    faults: tuple[Fault, ...] = (
        ()
        if plan.calm
        else tuple(
            StepFault(
                node=node.name,
                step="inspect",
                number=rng.randint(1, 6),
                outcome=rng.choice(("hang", "retryable")),
            )
            for node in plan.nodes
            if node.compute and rng.random() < 0.5
        )
    )
    # Not calm: a node may have no room for a job, and the time of a bid depends on the inspection.
    return replace(plan, jobs=jobs, nodes=nodes, faults=plan.faults + faults, calm=False)
