"""Which nodes could run a job, and which bids are best."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bacalhau_p2p.components.protocol import Random
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.constraints import matches
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import NodeInfo

LOAD_STEPS = 4
"""Steps of load within which a node's share of the inputs counts for more than its exact load."""


@dataclass(frozen=True, slots=True)
class RankedBid:
    """What counts of a bid when the best ones are chosen."""

    execution_id: ExecutionID
    node: PeerID
    load: float
    local_input_bytes: int = 0
    """Bytes of the job's inputs that the node has already."""
    failures: int = 0
    """How often the node has failed this job."""
    penalised: bool = False
    """Whether the node has lately wasted the requester's time."""


def ineligibility_reason(info: NodeInfo, spec: JobSpec) -> str | None:
    """Why this node cannot run such a job even when idle, or None if it can."""
    compute = info.compute
    if compute is None:
        return "runs no jobs"
    task = spec.task
    if task.engine.type not in compute.engines:
        return f"has no {task.engine.type} engine"
    for source in task.input_sources:
        if source.source.type not in compute.storage_sources:
            return f"has no {source.source.type} storage provider"
    if task.publisher.type not in compute.publishers:
        return f"has no {task.publisher.type} publisher"
    if task.network.type != "None" and task.network.type not in compute.networks:
        return f"runs no jobs with the network {task.network.type}"
    if not spec.resources.fits_in(compute.max_capacity):
        return spec.resources.too_large_for(compute.max_capacity)
    if not matches(spec.constraints, info.labels):
        return "does not match the job's constraints"
    return None


def rank(bids: Iterable[RankedBid], *, rng: Random) -> list[RankedBid]:
    """Best first: nodes that have failed this job less often, then those without a penalty, then the less
    loaded, then at random.

    Among nodes of about the same load, those that have more of the job's inputs come first: no two machines
    have quite the same load, and moving data costs more than a slightly higher load.
    """
    return sorted(
        bids,
        key=lambda bid: (
            bid.failures,
            bid.penalised,
            int(round(bid.load, 2) * LOAD_STEPS),
            -bid.local_input_bytes,
            round(bid.load, 2),
            rng.random(),
        ),
    )
