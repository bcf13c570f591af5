"""The addresses at which peers can be dialled, as they or others announced them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from bacalhau_p2p.encoding.multiaddrs import MAX_MULTIADDR
from bacalhau_p2p.model.base import PeerID

MAX_ADDRESSES: Final = 16
"""Addresses that are kept of a peer and tried in turn."""

MAX_PEERS: Final = 20_000
"""Peers whose addresses are remembered; those that were learnt longest ago are forgotten first."""

MAX_REMEMBERED: Final = 16 * 1024 * 1024
"""Characters of all remembered addresses."""


class KnownAddresses:
    """The addresses of peers, within a bounded number of peers and characters."""

    def __init__(self) -> None:
        self._by_peer: OrderedDict[PeerID, tuple[str, ...]] = OrderedDict()
        self._size = 0

    def put(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """These replace the known ones. Too long ones, and more than MAX_ADDRESSES, are left out."""
        self._drop(peer)
        usable = tuple(text for text in addresses[:MAX_ADDRESSES] if len(text) <= MAX_MULTIADDR)
        self._by_peer[peer] = usable
        self._size += _size(peer, usable)
        while len(self._by_peer) > MAX_PEERS or self._size > MAX_REMEMBERED:
            self._drop(next(iter(self._by_peer)))

    def of(self, peer: PeerID) -> tuple[str, ...] | None:
        """None if nothing was put for this peer, or it was forgotten."""
        return self._by_peer.get(peer)

    def _drop(self, peer: PeerID) -> None:
        addresses = self._by_peer.pop(peer, None)
        if addresses is not None:
            self._size -= _size(peer, addresses)


def _size(peer: PeerID, addresses: tuple[str, ...]) -> int:
    return len(peer) + sum(map(len, addresses))
