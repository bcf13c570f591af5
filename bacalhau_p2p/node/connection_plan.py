"""How many connections a node keeps, and which it closes. Pure.

A node dials others at random until it has `wanted` connections, and closes some beyond HIGH_WATER. Links
chosen at random hold a network together: whichever node ends, the others stay connected. So those that a node
dialled itself are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from bacalhau_p2p.model.base import PeerID, UnixSeconds

HIGH_WATER = 40
"""Connections above which a node closes those that are not in use."""
GRACE = 30.0
"""Seconds for which a new connection is not closed: a newcomer needs one until it has found others."""


class ConnectionPlan:
    """The connections of one node. Time is an argument."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._since: dict[PeerID, UnixSeconds] = {}
        self._strangers: set[PeerID] = set()
        self._dialled: dict[PeerID, None] = {}
        """Peers that this node dialled and that are still connected, the first ones first."""

    def connected(
        self,
        peers: Iterable[PeerID],
        now: UnixSeconds,
        is_member: Callable[[PeerID], bool] = lambda peer: True,
    ) -> None:
        """These are the connected peers now. One that is no member of the network, such as an IPFS node
        nearby, does not count as one of the `wanted` once it is not new."""
        self._since = {peer: self._since.get(peer, now) for peer in peers}
        self._strangers = {
            peer for peer, since in self._since.items() if now - since >= GRACE and not is_member(peer)
        }
        self._dialled = {peer: None for peer in self._dialled if peer in self._since}

    def dialled(self, peer: PeerID, now: UnixSeconds) -> None:
        """This node has dialled the peer to have enough connections."""
        self._since.setdefault(peer, now)
        self._dialled[peer] = None

    @property
    def missing(self) -> int:
        """How many connections to make."""
        return max(0, self.wanted - len(self._since) + len(self._strangers))

    def to_close(self, used: Collection[PeerID], now: UnixSeconds, order: Iterable[PeerID]) -> list[PeerID]:
        """The peers to disconnect, the first in `order` first: none of `used`, none that is new, and none of
        the `wanted` that this node dialled itself."""
        kept = {*used, *list(self._dialled)[: self.wanted]}
        idle = [
            peer
            for peer in order
            if peer in self._since and peer not in kept and now - self._since[peer] >= GRACE
        ]
        return idle[: max(0, len(self._since) - HIGH_WATER)]
