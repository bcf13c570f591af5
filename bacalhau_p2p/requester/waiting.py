"""What a job waits for, for its user to read."""

from __future__ import annotations

from collections.abc import Sequence

from bacalhau_p2p.requester.liveness import Liveness
from bacalhau_p2p.requester.ops_nodes import is_waited_for
from bacalhau_p2p.requester.ranking import ineligibility_reason
from bacalhau_p2p.requester.record import JobEntry

MAX_NAMED = 4
"""Nodes that are named for the same reason. The others are counted."""


def reasons_to_wait(entry: JobEntry, liveness: Liveness) -> str:
    """Why each compute node does not take the job; of an ops job, each node that it waits for."""
    spec, is_busy = entry.job.spec, entry.placement.is_busy
    reasons: dict[str, list[str]] = {}
    for peer, info in liveness.nodes.items():
        if info.compute is None or (entry.ops and not is_waited_for(entry, peer)):
            continue
        reason = ineligibility_reason(info, spec) or entry.declined.get(peer)
        if reason is None and peer in entry.failures:
            reason = f"failed: {entry.failures[peer]}"
        if reason is None and peer in liveness.disconnected_at:
            reason = "is unreachable"
        if reason is None and is_busy(peer):
            reason = "already has a bid or an execution"
        reasons.setdefault(reason or "did not answer", []).append(peer[-8:])
    if not reasons:
        return "no compute node is known"
    return "; ".join(f"{_named(sorted(peers))} {reason}" for reason, peers in sorted(reasons.items()))


def _named(peers: Sequence[str]) -> str:
    """One node, or with a colon several: the first of them, and how many more there are."""
    if len(peers) == 1:
        return peers[0]
    more = len(peers) - MAX_NAMED
    return ", ".join(peers[:MAX_NAMED]) + (f" and {more} more:" if more > 0 else ":")
