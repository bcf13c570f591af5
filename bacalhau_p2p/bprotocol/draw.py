"""The draw: which nodes look at an announced job, so that a job costs the same in a network of any size.

Each node has a lot for each job, a number from 0 to 1 that anybody can compute. An announcement says below
which lot nodes may bid. Those with higher ones do nothing. A requester that widens the draw reaches those
that it reached before, and others.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from bacalhau_p2p.bprotocol.messages import Announcement
from bacalhau_p2p.model.base import JobID, PeerID

SPREAD_FOR_EACH = 0.005
"""Seconds over which the bids on an ops job are spread for each node that may bid."""
LONGEST_SPREAD = 5.0
"""Seconds over which they are spread at most."""
_BITS = 53
"""What a float holds exactly."""

CROWD: Final = 64
"""Nodes that may bid, roughly, in the first round of a job whose requester knows of none that could."""
CROWD_FOR_EACH: Final = 4
"""The same for each bid that the job wants, if that is more."""
CROWD_GROWTH: Final = 12
"""How many times as many it is with each further round."""


def lot(job_id: JobID, node: PeerID) -> float:
    """The lot of a node for a job, at least 0 and less than 1: the first 53 bits of a SHA-256."""
    digest = sha256(f"{job_id}\n{node}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - _BITS)) / (1 << _BITS)


def is_drawn(announcement: Announcement, node: PeerID, *, nodes: int = 0) -> bool:
    """Whether this node, which knows so many `nodes`, may bid in this round.

    A requester that knows nobody asks everybody. Then those that know better hold back.
    """
    chance = announcement.chance
    if not announcement.eligible and nodes > CROWD:
        most = max(CROWD, CROWD_FOR_EACH * announcement.bids_wanted)
        chance = min(chance, most * CROWD_GROWTH ** min(announcement.round - 1, 10) / nodes)
    return chance >= 1.0 or lot(announcement.job_id, node) < chance


def spread(eligible: int) -> float:
    """Seconds over which the bids on an ops job are spread that so many nodes may place."""
    return min(eligible * SPREAD_FOR_EACH, LONGEST_SPREAD)
