"""What a node knows of a job before it bids, and how eagerly it bids."""

from __future__ import annotations

from dataclasses import dataclass

from bacalhau_p2p.model.quantities import format_bytes

BIDS_FOR_EACH_WANTED = 3
"""How many times the wanted bids a requester should expect in the first round of a large network: one in
which more nodes than that are eligible."""
LONGEST_DELAY = 0.15
"""Seconds that a fully loaded node of a large network waits before it bids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What a node knows of a job as soon as it is announced, without any I/O that takes time."""

    ineligibility: str | None = None
    """Why this node will not run the job, whatever its load: `has no docker engine`."""
    shortage: str | None = None
    """What this node has too little of to run any job now: `has almost no free disk`."""
    needs_inspection: bool = False
    """The job has inputs, or the operator's probes decide about it: that takes time to find out."""
    outlives_node: bool = False
    """A run of the job here goes on without the node's process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What an inspection has found out about a job's inputs, and what the operator's probes say.

    Bytes; an input of unknown size counts as nothing.
    """

    refusal: str | None = None
    """Why this node will not run the job."""
    shortage: str | None = None
    """What this node has too little of to take the job's inputs now."""
    input_bytes: int = 0
    local_input_bytes: int = 0
    """Of those, what is on this node already."""
    disk: int = 0
    """What the inputs will take of this node's disk, beyond what they take now."""


NOTHING_FOUND = Findings()


def bid_probability(*, bids_wanted: int, eligible: int, round_number: int) -> float:
    """How likely one of `eligible` nodes should bid, so that few bids are wasted and enough come."""
    if eligible <= 0:
        return 1.0
    share = BIDS_FOR_EACH_WANTED * bids_wanted / eligible
    return min(1.0, share * 2.0 ** min(round_number - 1, 30))


def bid_delay(*, load: float, random: float) -> float:
    """Seconds to wait before bidding in a large network: longer for busy nodes. Both from 0 to 1."""
    return LONGEST_DELAY * (0.1 + 0.9 * load) * random


def no_disk_for_inputs(*, inputs: int, job: int, free: int) -> str:
    """Why a node cannot take a job whose inputs need so many bytes of disk, and itself `job` more."""
    wanted = f"inputs need {format_bytes(inputs)}"
    if job:
        wanted += f" and the job {format_bytes(job)} more"
    return f"{wanted}, {format_bytes(free)} of disk are free"
