"""File descriptors: how many this process may open, and how many of them connections may take.

Strangers open connections. Without descriptors left a job cannot open its files, so connections in all
stay below the limit, with a reserve for everything else.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

RESERVE = 512
"""Descriptors that connections leave for jobs, files and databases; half of all if there are few."""
MOST = 65_536
"""Descriptors that are asked for: more than all connections and the reserve."""
API_SHARE = 4
"""The API may take one in so many of the others."""
DIAL_SHARE = 8
"""Connections that are being dialled may take one in so many of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorShares:
    """The most descriptors for each use."""

    api: int
    """Connections to the HTTP API."""
    dials: int
    """Connections to peers that are not established yet."""
    swarm: int
    """Connections to peers."""


def raise_limit() -> int:
    """Raise the soft limit of this process to its hard limit, at most to MOST; the result is the soft limit.

    1,024, the usual soft limit, is for programs that use `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def shares(limit: int | None = None) -> DescriptorShares:
    """The shares of `limit` descriptors, by default of the soft limit of this process."""
    if limit is None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        limit = MOST
    rest = limit - min(RESERVE, limit // 2)
    api, dials = rest // API_SHARE, rest // DIAL_SHARE
    return DescriptorShares(api=api, dials=dials, swarm=rest - api - dials)
