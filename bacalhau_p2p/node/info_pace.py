"""How often a node says what it is. Pure.

Every node receives the infos of all others. So that these together stay below a fixed number a second, each
node repeats its own the more rarely, the more nodes there are.
"""

from __future__ import annotations

from bacalhau_p2p.model.node import LONGEST_INFO_INTERVAL, SHORTEST_INFO_INTERVAL

MAX_INFOS_PER_SECOND = 1.0
"""Infos that one node receives a second, of all others together, while nothing changes."""
LEAST_SHARE = 0.8
"""The share of the interval after which a node repeats its info at the earliest, so that they spread out."""
MISSED_INTERVALS = 3
"""Intervals without an info after which a node is stale."""


def info_interval(nodes: int) -> float:
    """Seconds from one info of a node to its next at most, where so many nodes are known."""
    needed = nodes / (LEAST_SHARE * MAX_INFOS_PER_SECOND)
    return min(max(SHORTEST_INFO_INTERVAL, needed), LONGEST_INFO_INTERVAL)


def next_pause(interval: float, random: float) -> float:
    """Seconds from this info to the next; `random` is from 0 to 1."""
    return interval * (LEAST_SHARE + (1 - LEAST_SHARE) * random)
