from __future__ import annotations

from bacalhau_p2p.ipfs.dht import provider_store
from bacalhau_p2p.ipfs.dht.provider_store import PROVIDERS_PER_KEY, RECORD_LIFETIME, ProviderStore
from bacalhau_p2p.ipfs.dht.wire import Contact
from tests.support.networks.dht_net import identity

ALICE, BOB = Contact(identity(1).peer_id), Contact(identity(2).peer_id)


def test_a_record_expires():
    records = ProviderStore()
    assert records.add(b"k", ALICE, 0)
    assert records.get(b"k", RECORD_LIFETIME - 1) == [ALICE]
    assert records.get(b"k", RECORD_LIFETIME) == []
    assert len(records) == 0


def test_the_most_recent_provider_comes_first():
    records = ProviderStore()
    records.add(b"k", ALICE, 0)
    records.add(b"k", BOB, 1)
    assert records.get(b"k", 2) == [BOB, ALICE]
    records.add(b"k", ALICE, 3)
    assert records.get(b"k", 4) == [ALICE, BOB]
    assert len(records) == 2


def test_records_are_bounded_per_peer_and_the_oldest_make_room(monkeypatch):
    monkeypatch.setattr(provider_store, "MAX_RECORDS", 50)
    monkeypatch.setattr(provider_store, "RECORDS_PER_PEER", 30)
    records = ProviderStore()
    added = [records.add(b"%d" % number, ALICE, 0) for number in range(100)]
    assert added == [True] * 30 + [False] * 70
    for number in range(100, 120):
        assert records.add(b"%d" % number, BOB, 0)
    assert len(records) == 50
    assert records.add(b"new", BOB, 1)
    assert len(records) == 50
    assert records.get(b"0", 1) == []


def test_the_providers_of_one_key_are_bounded():
    records = ProviderStore()
    added = [records.add(b"k", Contact(identity(number).peer_id), 0) for number in range(10, 40)]
    assert added == [True] * PROVIDERS_PER_KEY + [False] * (30 - PROVIDERS_PER_KEY)
