"""The nodes of the network: what each last announced of itself, for as long as that is fresh. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.node import NodeInfo, NodeLoad
from bacalhau_p2p.node.info_pace import MISSED_INTERVALS

FORGET_AFTER = 600.0
"""Seconds after which a node that is stale or has left is no longer listed."""
LOAD_LASTS = 15.0
"""Seconds for which what a heartbeat says about the load of a node counts: three heartbeats."""
MAX_NODES = 10_000
"""Known nodes. Bounds the memory that a flood of invented nodes can take."""


@dataclass(frozen=True, slots=True)
class KnownNode:
    info: NodeInfo
    received_at: UnixSeconds
    """By this node's clock, not the sender's."""
    load: NodeLoad | None = None
    """What the latest heartbeat said, if one came since the announcement."""
    load_received_at: UnixSeconds = 0
    fresh_since: UnixSeconds = 0
    """When it came, or came back after it had been silent or had left."""

    @property
    def stale_at(self) -> UnixSeconds:
        """When it has been silent for so long that it is shown as disconnected and no job waits for it."""
        return self.received_at + (0 if self.info.leaving else MISSED_INTERVALS * self.info.interval)

    def is_fresh(self, now: UnixSeconds) -> bool:
        """Whether the last announcement is recent. Says nothing about a connection to the node."""
        return now < self.stale_at

    def info_at(self, now: UnixSeconds) -> NodeInfo:
        """The announcement, with the latest that is known of the node's load."""
        if self.load is None or self.info.compute is None or now - self.load_received_at >= LOAD_LASTS:
            return self.info
        return self.info.replace(compute=self.info.compute.with_load(self.load))


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
        since = known.fresh_since if known is not None and known.is_fresh(now) else now
        self._known[info.id] = KnownNode(info, now, fresh_since=since)
        if info.leaving:
            self._stale.add(info.id)
        else:
            self._stale.discard(info.id)
        return True

    def update_load(self, peer: PeerID, load: NodeLoad, now: UnixSeconds) -> None:
        """Record how busy a node is, as a heartbeat of it says."""
        known = self._known.get(peer)
        if known is not None:
            self._known[peer] = replace(known, load=load, load_received_at=now)

    def expire(self, now: UnixSeconds) -> list[PeerID]:
        """The nodes that have become stale since the last call. Forgets those that were silent for long."""
        stale = [
            peer for peer, known in self._known.items() if not known.is_fresh(now) and peer not in self._stale
        ]
        self._stale.update(stale)
        for peer, known in list(self._known.items()):
            if now >= known.stale_at + FORGET_AFTER:
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

    @property
    def count(self) -> int:
        """How many nodes are known."""
        return len(self._known)

    def nodes(self) -> list[KnownNode]:
        """Every known node, ordered by peer id."""
        return sorted(self._known.values(), key=lambda known: known.info.id)
