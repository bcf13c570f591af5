"""What the DHT uses of the rest of the node: known peers, their addresses and the node's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from bacalhau_p2p.ipfs.dht.wire import Contact
from bacalhau_p2p.model.base import PeerID


@dataclass(frozen=True, slots=True, kw_only=True)
class Peerstore:
    """Peers and addresses that are known outside the DHT."""

    bootstrap: Callable[[], Iterable[Contact]]
    """Nodes to begin a lookup with, besides those in the routing table."""
    add_addresses: Callable[[PeerID, Sequence[str]], None]
    """Remember the addresses that other nodes gave for a peer."""
    own_addresses: Callable[[], Sequence[str]]
    connected: Callable[[], Collection[PeerID]] = tuple
    """Peers with an open connection."""
