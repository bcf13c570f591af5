"""What one node of the DHT knows: nodes by distance, and who provides what. Pure: time is an argument."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from heapq import nsmallest

from bacalhau_p2p.ipfs.dht.wire import Contact, peer_key
from bacalhau_p2p.model.base import PeerID

BUCKET = 20
"""Nodes of about one distance that are remembered, and nodes to which a search narrows down: Kademlia's k."""

RECORD_LIFETIME = 24 * 3600.0
"""Seconds for which a provider is believed."""
PROVIDERS_A_KEY = 20
RECORDS_A_PEER = 20_000
RECORDS = 100_000
"""Records kept in all; the oldest makes room."""


def position(key: bytes) -> int:
    """Where a key lies in the space of the DHT."""
    return int.from_bytes(hashlib.sha256(key).digest())


@lru_cache(maxsize=8192)
def peer_position(peer: PeerID) -> int:
    """Where a node lies in it."""
    return position(peer_key(peer) or b"")


def nearest(key: bytes, contacts: Iterable[Contact], count: int) -> list[Contact]:
    """Those nearest to a key, the nearest first."""
    target = position(key)
    known = [(peer_position(contact.peer) ^ target, contact) for contact in contacts]
    return [contact for _, contact in nsmallest(count, known, key=lambda item: item[0])]


class Table:
    """Nodes that answered, in buckets by distance from here; an old node is worth more than a new one."""

    def __init__(self, own: PeerID) -> None:
        self._own = own
        self._position = peer_position(own)
        self._buckets: dict[int, OrderedDict[PeerID, Contact]] = {}

    def _bucket(self, peer: PeerID) -> OrderedDict[PeerID, Contact]:
        level = (peer_position(peer) ^ self._position).bit_length()
        return self._buckets.setdefault(level, OrderedDict())

    def answered(self, contact: Contact) -> None:
        """This node is there. A bucket that is full takes no new one."""
        bucket = self._bucket(contact.peer)
        known = bucket.get(contact.peer)
        if known is not None or len(bucket) < BUCKET:
            addresses = contact.addresses or (known.addresses if known else ())
            bucket[contact.peer] = Contact(contact.peer, addresses)
            bucket.move_to_end(contact.peer)

    def failed(self, peer: PeerID) -> None:
        """This node did not answer."""
        self._bucket(peer).pop(peer, None)

    def contacts(self) -> list[Contact]:
        return [contact for bucket in self._buckets.values() for contact in bucket.values()]


class Records:
    """Who provides what, as the providers themselves said."""

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, dict[PeerID, tuple[Contact, float]]] = OrderedDict()
        self._by_peer: Counter[PeerID] = Counter()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, key: bytes, contact: Contact, now: float) -> bool:
        """Whether there was room for it."""
        providers = self._keys.get(key, {})
        if contact.peer not in providers:
            self._expire(key, now)
            providers = self._keys.get(key, {})
            if len(providers) >= PROVIDERS_A_KEY or self._by_peer[contact.peer] >= RECORDS_A_PEER:
                return False
            while len(self) >= RECORDS:
                oldest = next(iter(self._keys))
                for peer in list(self._keys[oldest]):
                    self._drop(oldest, peer)
            self._by_peer[contact.peer] += 1
            self._size += 1
        self._keys.setdefault(key, {})[contact.peer] = (contact, now + RECORD_LIFETIME)
        self._keys.move_to_end(key)
        return True

    def get(self, key: bytes, now: float) -> list[Contact]:
        """The providers of a key, the latest first."""
        self._expire(key, now)
        known = sorted(self._keys.get(key, {}).values(), key=lambda item: -item[1])
        return [contact for contact, _ in known]

    def _expire(self, key: bytes, now: float) -> None:
        for peer, (_, until) in list(self._keys.get(key, {}).items()):
            if until <= now:
                self._drop(key, peer)

    def _drop(self, key: bytes, peer: PeerID) -> None:
        del self._keys[key][peer]
        self._by_peer[peer] -= 1
        self._size -= 1
        if not self._by_peer[peer]:
            del self._by_peer[peer]
        if not self._keys[key]:
            del self._keys[key]
