"""Makes the jobs of any world large: nodes that may bid fetch their specs first."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.plans.plan import Plan
from tests.simulation.plans.rng import rng_for


def with_large_jobs(plan: Plan) -> Plan:
    """The plan with up to 200 KB in the specs of most of its jobs."""
    rng = rng_for(plan.seed, "large")
    jobs = tuple(
        replace(job, padding=rng.choice((5_000, 50_000, 200_000)) if rng.random() < 0.8 else 0)
        for job in plan.jobs
    )
    # Not calm: a bid comes later, and requests and deliveries are messages, too.
    return replace(plan, jobs=jobs, calm=False)
