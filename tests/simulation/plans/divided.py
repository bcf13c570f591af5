"""Makes most jobs of any world ops jobs, or divides them into partitions, often more than there are nodes."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.simulation.plans.plan import JobPlan, Plan
from tests.simulation.plans.rng import rng_for


def with_divided_jobs(plan: Plan) -> Plan:
    """The plan with ops jobs and jobs of up to 12 partitions, each run by up to 3 nodes."""
    if plan.abandoned:  # how long each of its runs takes matters
        return plan
    rng = rng_for(plan.seed, "divided")
    computes = sum(node.compute for node in plan.nodes)
    jobs = tuple(_changed(rng, job, computes, patient=plan.mild) for job in plan.jobs)
    # Not calm: how many bids there are depends on the room of each node. An ops job does not wait for a node
    # that is away for long.
    return replace(plan, jobs=jobs, calm=False, mild=plan.mild and not plan.returning, returning=False)


def _changed(rng: Random, job: JobPlan, computes: int, *, patient: bool) -> JobPlan:
    kind = rng.random()
    if kind < 0.4:
        return replace(job, ops=True, count=1, verifier="noop", confidence=0, compared=(), min_bids=0)
    if kind > 0.9:
        return job
    replicas = rng.choice((1, 1, 2, 3))
    if patient:
        replicas = min(replicas, computes)
    deterministic = replicas > 1 and rng.random() < 0.7
    return replace(
        job,
        count=rng.choice((1, 2, 5, 8, 12)),
        replicas=replicas,
        run=min(job.run, 20.0),
        verifier="deterministic" if deterministic else "noop",
        confidence=rng.choice((0, 1, replicas)) if deterministic else 0,
        compared=job.compared if deterministic else (),
    )
