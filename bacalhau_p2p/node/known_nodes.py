"""Who is in the network: what nodes said of themselves, for as long as it is fresh. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.node import NodeInfo

PUBLISH_EVERY = 15.0
"""Seconds between two infos of a node to which nothing happens."""
PUBLISH_APART = 1.0
"""Seconds between two infos at least."""
STALE_AFTER = 45.0
"""Seconds without a sign after which a node is shown as disconnected and no job waits for it."""
FORGOTTEN_AFTER = 600.0
MOST_NODES = 10_000
"""Nodes remembered; a flood of invented ones fills no memory."""


@dataclass(frozen=True, slots=True)
class KnownNode:
    info: NodeInfo
    heard: UnixSeconds

    def fresh(self, now: UnixSeconds) -> bool:
        return now - self.heard < STALE_AFTER


class KnownNodes:
    """Infos by peer, with the time at which each was heard by our own clock."""

    def __init__(self) -> None:
        self._known: dict[PeerID, KnownNode] = {}
        self._stale: set[PeerID] = set()

    def saw(self, info: NodeInfo, now: UnixSeconds) -> bool:
        """Keep this info; False when it is older than what is known, or there are too many nodes."""
        known = self._known.get(info.id)
        if known is not None and info.sent < known.info.sent:
            return False
        if known is None and len(self._known) >= MOST_NODES:
            return False
        self._known[info.id] = KnownNode(info, now)
        self._stale.discard(info.id)
        return True

    def gone_stale(self, now: UnixSeconds) -> list[PeerID]:
        """Nodes that turned stale since the last call; those silent for long are dropped besides."""
        turned = [
            peer for peer, known in self._known.items() if not known.fresh(now) and peer not in self._stale
        ]
        self._stale.update(turned)
        for peer, known in list(self._known.items()):
            if now - known.heard >= FORGOTTEN_AFTER:
                del self._known[peer]
                self._stale.discard(peer)
        return turned

    def get(self, peer: PeerID) -> KnownNode | None:
        return self._known.get(peer)

    def gateways(self, now: UnixSeconds) -> dict[PeerID, str]:
        """The URLs at which fresh nodes serve content over HTTP, by peer id."""
        return {
            known.info.id: known.info.gateway
            for known in self.nodes()
            if known.info.gateway and known.fresh(now)
        }

    def nodes(self) -> list[KnownNode]:
        """Every node that is known, by peer id."""
        return sorted(self._known.values(), key=lambda known: known.info.id)
