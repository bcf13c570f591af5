"""Kademlia's routing table, and nodes sorted by position, so that the nearest to a key are found at once."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from heapq import nsmallest

from bacalhau_p2p.ipfs.dht.wire import Contact, peer_key
from bacalhau_p2p.model.base import PeerID

_POSITION_BITS = 256
"""Bits of a position: a SHA-256."""

BUCKET_SIZE = 20
"""Nodes in one bucket, and nodes that a lookup narrows down to: Kademlia's k."""


def position(key: bytes) -> int:
    """The position of a key in the DHT's key space."""
    return int.from_bytes(hashlib.sha256(key).digest())


@lru_cache(maxsize=16 * 1024)
def peer_position(peer: PeerID) -> int | None:
    """The position of a node in the DHT's key space; None when its peer id is malformed."""
    key = peer_key(peer)
    return position(key) if key else None


def nearest(key: bytes, contacts: Iterable[Contact], count: int) -> list[Contact]:
    """The `count` contacts nearest to a key, the nearest first. For many contacts use `SortedContacts`."""
    target = position(key)
    known = [
        (at ^ target, contact) for contact in contacts if (at := peer_position(contact.peer)) is not None
    ]
    return [contact for _, contact in nsmallest(count, known, key=lambda item: item[0])]


class SortedContacts:
    """Nodes sorted by position. Those whose peer id is malformed are left out."""

    def __init__(self, contacts: Iterable[Contact] = ()) -> None:
        """Of several contacts with the same peer, the last one counts."""
        self._contacts = {
            at: contact for contact in contacts if (at := peer_position(contact.peer)) is not None
        }
        self._positions = sorted(self._contacts)

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[Contact]:
        return iter(self._contacts.values())

    def add(self, contact: Contact) -> None:
        """Add or replace a node."""
        at = peer_position(contact.peer)
        if at is not None:
            if at not in self._contacts:
                insort(self._positions, at)
            self._contacts[at] = contact

    def remove(self, peer: PeerID) -> None:
        """Remove a node, if it is there."""
        at = peer_position(peer)
        if at is not None and self._contacts.pop(at, None) is not None:
            del self._positions[bisect_left(self._positions, at)]

    def nearest(self, key: bytes, count: int) -> list[Contact]:
        """The `count` nodes nearest to a key, the nearest first."""
        target, found = position(key), list[int]()
        # Positions with the same leading bits are side by side. The half that has the bit of the target comes
        # first: each position in it is nearer than any in the other half.
        ranges = [(0, len(self._positions), _POSITION_BITS - 1)]
        while ranges and len(found) < count:
            start, end, bit = ranges.pop()
            if end - start <= count or bit < 0:
                found += sorted(self._positions[start:end], key=target.__xor__)
                continue
            half = (self._positions[start] >> bit | 1) << bit
            middle = bisect_left(self._positions, half, start, end)
            zeros, ones = (start, middle, bit - 1), (middle, end, bit - 1)
            ranges += (zeros, ones) if target >> bit & 1 else (ones, zeros)
        return [self._contacts[at] for at in found[:count]]


class RoutingTable:
    """Nodes that answered, in buckets by distance from this node. A full bucket keeps its old nodes."""

    def __init__(self, own: PeerID) -> None:
        self._position = peer_position(own) or 0
        self._buckets: dict[int, OrderedDict[PeerID, Contact]] = {}

    def _bucket(self, peer: PeerID) -> OrderedDict[PeerID, Contact]:
        level = ((peer_position(peer) or 0) ^ self._position).bit_length()
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
