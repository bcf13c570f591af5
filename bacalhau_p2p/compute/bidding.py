"""What a node knows about a job before it bids, and how eagerly it bids."""

from __future__ import annotations

from dataclasses import dataclass, field

from bacalhau_p2p.model.quantities import format_bytes

LONGEST_DELAY = 0.15
"""Seconds that a fully loaded node waits before it bids, where not everybody may bid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What a node knows about a job as soon as it is announced."""

    drawn: bool = True
    """The draw has said that this node may bid. If not, nothing else is known."""
    ineligibility: str | None = None
    """Why this node will not run the job, whatever its load: `has no docker engine`."""
    shortage: str | None = None
    """What this node has too little of to run any job now: `has almost no free disk`."""
    needs_inspection: bool = False
    """The job has inputs, or the operator's probes decide about it."""
    outlives_node: bool = False
    """A run of the job on this node continues without the process of the node."""


NOT_DRAWN = Assessment(drawn=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the inspection of a job has found: its inputs, and the answers of the operator's probes.

    Sizes are in bytes; an input of unknown size counts as 0.
    """

    refusal: str | None = None
    """Why this node will not run the job."""
    shortage: str | None = None
    """What this node has too little of to take the job's inputs now."""
    input_bytes: int = 0
    local_input_bytes: int = 0
    """Bytes of the inputs that are on this node already."""
    disk: int = 0
    """Bytes of this node's disk that the inputs will take, beyond what they take now."""
    unsized: bool = False
    """Whether there are inputs of unknown size."""
    sizes: tuple[tuple[int, int] | None, ...] = field(default=(), compare=False)
    """Of each input, in the order of the job, its size and how much of it is on this node already; None is
    unknown."""


NOTHING_FOUND = Findings()


def bid_delay(*, load: float, random: float) -> float:
    """Seconds to wait before a bid where not everybody may bid: longer on a busy node. Arguments are from 0
    to 1."""
    return LONGEST_DELAY * (0.1 + 0.9 * load) * random


def no_disk_for_inputs(*, inputs: int, job: int, free: int) -> str:
    """Why a node declines a job: its inputs need this many bytes of disk, the job another `job` bytes."""
    wanted = f"inputs need {format_bytes(inputs)} of disk"
    if job:
        wanted += f" and the job another {format_bytes(job)}"
    return f"{wanted}; {format_bytes(free)} is free"
