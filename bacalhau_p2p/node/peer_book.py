"""What is known of other peers, whatever the source: announcements, connections, users and other nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bacalhau_p2p.ipfs.dht.wire import Contact
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.node.known_nodes import KnownNodes
from bacalhau_p2p.transports.interface import Transport

MAX_USER_PEERS = 4096
"""Peers whose addresses users gave, of which it is remembered that users gave them."""


class PeerBook:
    """Which peers to ask, and where to dial them.

    Addresses that a peer announces itself, or that a user gives, are trusted more than those that another
    peer passes on: these are used only for peers that nothing else is known of.
    """

    def __init__(
        self, transport: Transport, known_nodes: KnownNodes, clock: Callable[[], UnixSeconds]
    ) -> None:
        self._transport = transport
        self._known_nodes = known_nodes
        self._clock = clock
        self._given_by_users: set[PeerID] = set()

    def candidates(self, limit: int | None = None) -> list[PeerID]:
        """Peers that may have content: the connected ones first, then fresh nodes."""
        now = self._clock()
        fresh = [known.info.id for known in self._known_nodes.nodes() if known.is_fresh(now)]
        peers = dict.fromkeys([*self._transport.peers, *fresh])
        return [peer for peer in peers if peer != self._transport.peer_id][:limit]

    def dht_nodes(self) -> list[Contact]:
        """Fresh nodes that serve the DHT, and connected peers that have announced nothing."""
        nodes, now = self._known_nodes.nodes(), self._clock()
        announced = {node.info.id for node in nodes}
        serving = [
            Contact(node.info.id, tuple(node.info.addresses))
            for node in nodes
            if node.info.dht and node.is_fresh(now) and node.info.id != self._transport.peer_id
        ]
        return serving + [Contact(peer) for peer in self._transport.peers if peer not in announced]

    def learn_from_user(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """A user gave the addresses of this peer."""
        if len(self._given_by_users) >= MAX_USER_PEERS:
            self._given_by_users.clear()
        self._given_by_users.add(peer)
        self._transport.learn_addresses(peer, addresses)

    def learn_from_peer(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """Another peer passed on the addresses of this one."""
        announced = self._known_nodes.get(peer) is not None
        known = announced or peer in self._transport.peers or peer in self._given_by_users
        if addresses and not known and peer != self._transport.peer_id:
            self._transport.learn_addresses(peer, addresses)
