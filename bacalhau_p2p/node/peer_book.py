"""What is known about other peers from all sources: announcements, connections, users and other peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bacalhau_p2p.ipfs.dht.wire import Contact
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.node.known_nodes import KnownNodes
from bacalhau_p2p.transports.interface import Transport

MAX_USER_PEERS = 4096
"""How many peers with addresses from users are remembered."""


class PeerBook:
    """Which peers to ask, and where to dial them.

    Addresses from a peer itself or from a user take precedence. Those that another peer passes on are used
    only if nothing else is known about the peer.
    """

    def __init__(
        self, transport: Transport, known_nodes: KnownNodes, clock: Callable[[], UnixSeconds]
    ) -> None:
        self._transport = transport
        self._known_nodes = known_nodes
        self._clock = clock
        self._from_users: set[PeerID] = set()

    @property
    def from_users(self) -> set[PeerID]:
        """The peers whose addresses a user has entered."""
        return self._from_users

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
        """Use addresses of a peer that a user has entered."""
        if len(self._from_users) >= MAX_USER_PEERS:
            self._from_users.clear()
        self._from_users.add(peer)
        self._transport.learn_addresses(peer, addresses)

    def learn_from_peer(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """Use addresses of a peer that another peer has passed on."""
        announced = self._known_nodes.get(peer) is not None
        known = announced or peer in self._transport.peers or peer in self._from_users
        if addresses and not known and peer != self._transport.peer_id:
            self._transport.learn_addresses(peer, addresses)
