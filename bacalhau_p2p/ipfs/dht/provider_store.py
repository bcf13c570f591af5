"""Provider records: who provides which keys, as the providers announced it. Pure: time is an argument."""

from __future__ import annotations

from collections import Counter, OrderedDict

from bacalhau_p2p.ipfs.dht.wire import Contact
from bacalhau_p2p.model.base import PeerID

RECORD_LIFETIME = 24 * 3600.0
"""Seconds until a record expires."""
PROVIDERS_PER_KEY = 20
RECORDS_PER_PEER = 20_000
MAX_RECORDS = 100_000
"""Records in all; the oldest are dropped to make room."""


class ProviderStore:
    """The provider records of one node, bounded per key, per peer and in all."""

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, dict[PeerID, tuple[Contact, float]]] = OrderedDict()
        self._by_peer: Counter[PeerID] = Counter()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, key: bytes, contact: Contact, now: float) -> bool:
        """Add or renew a record. False when the key or the peer has too many."""
        providers = self._keys.get(key, {})
        if contact.peer not in providers:
            self._expire(key, now)
            providers = self._keys.get(key, {})
            if len(providers) >= PROVIDERS_PER_KEY or self._by_peer[contact.peer] >= RECORDS_PER_PEER:
                return False
            while len(self) >= MAX_RECORDS:
                oldest = next(iter(self._keys))
                for peer in list(self._keys[oldest]):
                    self._drop(oldest, peer)
            self._by_peer[contact.peer] += 1
            self._size += 1
        self._keys.setdefault(key, {})[contact.peer] = (contact, now + RECORD_LIFETIME)
        self._keys.move_to_end(key)
        return True

    def get(self, key: bytes, now: float) -> list[Contact]:
        """The providers of a key, the most recent first."""
        self._expire(key, now)
        known = sorted(self._keys.get(key, {}).values(), key=lambda record: -record[1])
        return [contact for contact, _ in known]

    def _expire(self, key: bytes, now: float) -> None:
        for peer, (_, expires) in list(self._keys.get(key, {}).items()):
            if expires <= now:
                self._drop(key, peer)

    def _drop(self, key: bytes, peer: PeerID) -> None:
        del self._keys[key][peer]
        self._by_peer[peer] -= 1
        self._size -= 1
        if not self._by_peer[peer]:
            del self._by_peer[peer]
        if not self._keys[key]:
            del self._keys[key]
