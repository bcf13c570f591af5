"""What is remembered of the addresses of peers is bounded."""

from __future__ import annotations

from bacalhau_p2p.transports.libp2p.known_addresses import (
    MAX_ADDRESSES,
    MAX_PEERS,
    MAX_REMEMBERED,
    KnownAddresses,
)


def test_new_addresses_of_a_peer_replace_its_old_ones():
    known = KnownAddresses()
    known.put("a", ["/ip4/1.1.1.1/tcp/1"])
    known.put("a", ["/ip4/2.2.2.2/tcp/2"])
    assert known.of("a") == ("/ip4/2.2.2.2/tcp/2",)
    assert known.of("b") is None


def test_invented_peers_displace_those_that_were_learnt_first():
    """65 invented requesters a second, with 16 addresses of 25 KB each, took 1.4 GB in 40 seconds."""
    known = KnownAddresses()
    for number in range(MAX_PEERS + 10):
        known.put(f"peer-{number}", ["/dns4/" + "x" * 25_000, f"/ip4/1.1.1.1/tcp/{number}"])
    assert known.of("peer-9") is None
    assert known.of("peer-10") == ("/ip4/1.1.1.1/tcp/10",)
    assert len(known._by_peer) == MAX_PEERS


def test_all_addresses_together_have_a_limited_size():
    known = KnownAddresses()
    addresses = [f"/dns4/{'x' * 200}/tcp/{number}" for number in range(40)]
    for number in range(10_000):
        known.put(f"peer-{number}", addresses)
    kept = [known.of(f"peer-{number}") for number in range(10_000)]
    assert len(kept[-1]) == MAX_ADDRESSES
    assert kept[0] is None
    sizes = [len(f"peer-{number}") + sum(map(len, texts)) for number, texts in enumerate(kept) if texts]
    assert sum(sizes) == known._size <= MAX_REMEMBERED
