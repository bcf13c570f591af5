"""Kademlia's routing table: known nodes in buckets by XOR distance."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from heapq import nsmallest

from bacalhau_p2p.ipfs.dht.wire import Contact, peer_key
from bacalhau_p2p.model.base import PeerID

BUCKET_SIZE = 20
"""Nodes in one bucket, and nodes that a lookup narrows down to: Kademlia's k."""


def position(key: bytes) -> int:
    """The position of a key in the DHT's key space."""
    return int.from_bytes(hashlib.sha256(key).digest())


@lru_cache(maxsize=8192)
def peer_position(peer: PeerID) -> int:
    """The position of a node in the DHT's key space."""
    return position(peer_key(peer) or b"")


def nearest(key: bytes, contacts: Iterable[Contact], count: int) -> list[Contact]:
    """The `count` contacts nearest to a key, the nearest first."""
    target = position(key)
    known = [(peer_position(contact.peer) ^ target, contact) for contact in contacts]
    return [contact for _, contact in nsmallest(count, known, key=lambda item: item[0])]


class RoutingTable:
    """Nodes that answered, in buckets by distance from this node. A full bucket keeps its old nodes."""

    def __init__(self, own: PeerID) -> None:
        self._position = peer_position(own)
        self._buckets: dict[int, OrderedDict[PeerID, Contact]] = {}

    def _bucket(self, peer: PeerID) -> OrderedDict[PeerID, Contact]:
        level = (peer_position(peer) ^ self._position).bit_length()
        return self._buckets.setdefault(level, OrderedDict())

    def add(self, contact: Contact) -> None:
        """Add or renew a node that answered. A full bucket takes no new node."""
        bucket = self._bucket(contact.peer)
        known = bucket.get(contact.peer)
        if known is not None or len(bucket) < BUCKET_SIZE:
            addresses = contact.addresses or (known.addresses if known else ())
            bucket[contact.peer] = Contact(contact.peer, addresses)
            bucket.move_to_end(contact.peer)

    def remove(self, peer: PeerID) -> None:
        """Forget a node that did not answer."""
        self._bucket(peer).pop(peer, None)

    def contacts(self) -> list[Contact]:
        return [contact for bucket in self._buckets.values() for contact in bucket.values()]
