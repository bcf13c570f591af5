"""Kinds of worlds: each makes a plan of a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.simulation.plans.claimants import with_claimants
from tests.simulation.plans.divided import with_divided_jobs
from tests.simulation.plans.expand import expand, returning
from tests.simulation.plans.inputs import with_inputs
from tests.simulation.plans.internal import with_internal_faults
from tests.simulation.plans.large import with_large_jobs
from tests.simulation.plans.many import with_many_nodes
from tests.simulation.plans.plan import Plan
from tests.simulation.plans.rng import rng_for

KINDS: Mapping[str, Callable[[int], Plan]] = {
    "any": expand,
    "inputs": lambda seed: with_inputs(expand(seed)),
    "divided": lambda seed: with_divided_jobs(expand(seed)),
    "large": lambda seed: with_large_jobs(expand(seed)),
    "many": lambda seed: with_many_nodes(expand(seed)),
    "claimants": with_claimants,
    "internal": lambda seed: with_internal_faults(expand(seed)),
    "returning": lambda seed: returning(seed, rng_for(seed, "plan")),
}
"""By the name that `scripts/simulate --kind` takes."""
