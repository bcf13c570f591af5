"""The nodes of the network: what each last announced of itself, for as long as that is fresh. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.node import NodeInfo

PUBLISH_INTERVAL = 15.0
"""Seconds between two announcements of a node that does not change."""
MIN_PUBLISH_INTERVAL = 1.0
"""Seconds between any two announcements of a node."""
STALE_AFTER = 45.0
"""Seconds without an announcement after which a node is shown as disconnected and no job waits for it."""
FORGET_AFTER = 600.0
"""Seconds without an announcement after which a node is no longer listed."""
MAX_NODES = 10_000
"""Known nodes. Bounds the memory that a flood of invented nodes can take."""


@dataclass(frozen=True, slots=True)
class KnownNode:
    info: NodeInfo
    received_at: UnixSeconds
    """By this node's clock, not the sender's."""

    def is_fresh(self, now: UnixSeconds) -> bool:
        """Whether the last announcement is recent. Says nothing about a connection to the node."""
        return now - self.received_at < STALE_AFTER


class KnownNodes:
    """The latest announcement of each node, by peer id."""

    def __init__(self) -> None:
        self._known: dict[PeerID, KnownNode] = {}
        self._stale: set[PeerID] = set()

    def update(self, info: NodeInfo, now: UnixSeconds) -> bool:
        """Record an announcement. False if a newer one is known, or too many nodes are."""
        known = self._known.get(info.id)
        if known is not None and info.sent < known.info.sent:
            return False
        if known is None and len(self._known) >= MAX_NODES:
            return False
        self._known[info.id] = KnownNode(info, now)
        self._stale.discard(info.id)
        return True

    def expire(self, now: UnixSeconds) -> list[PeerID]:
        """The nodes that have become stale since the last call. Forgets those that were silent for long."""
        stale = [
            peer for peer, known in self._known.items() if not known.is_fresh(now) and peer not in self._stale
        ]
        self._stale.update(stale)
        for peer, known in list(self._known.items()):
            if now - known.received_at >= FORGET_AFTER:
                del self._known[peer]
                self._stale.discard(peer)
        return stale

    def forget(self, peer: PeerID) -> None:
        """List this node no more, until it announces itself again."""
        self._known.pop(peer, None)
        self._stale.discard(peer)

    def get(self, peer: PeerID) -> KnownNode | None:
        return self._known.get(peer)

    def gateways(self, now: UnixSeconds) -> dict[PeerID, str]:
        """The gateway URLs of fresh nodes, by peer id."""
        return {
            known.info.id: known.info.gateway
            for known in self.nodes()
            if known.info.gateway and known.is_fresh(now)
        }

    def nodes(self) -> list[KnownNode]:
        """Every known node, ordered by peer id."""
        return sorted(self._known.values(), key=lambda known: known.info.id)
