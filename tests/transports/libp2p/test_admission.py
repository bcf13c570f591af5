"""Peers that keep breaking the protocol are banned."""

from __future__ import annotations

from collections import Counter

import pytest

from bacalhau_p2p.model.access_list import AccessList
from bacalhau_p2p.transports.libp2p import admission
from bacalhau_p2p.transports.libp2p.admission import BAN_DURATION, MAX_OFFENCES, Admission


@pytest.fixture
def counters():
    return Counter()


async def test_a_peer_is_banned_after_so_many_offences(mock_clock, counters):
    peers = Admission(counters)
    assert [peers.record_offence("bob", "garbage") for _ in range(MAX_OFFENCES)] == [
        *[False] * (MAX_OFFENCES - 1),
        True,
    ]
    assert not peers.record_offence("bob", "garbage"), "counting starts again"
    assert counters["offences"] == MAX_OFFENCES + 1


async def test_a_ban_ends(mock_clock, counters):
    peers = Admission(counters)
    peers.ban("bob", BAN_DURATION)
    assert not peers.admits("bob")
    assert peers.admits("carol")
    mock_clock.jump(BAN_DURATION)
    assert peers.admits("bob")
    assert counters["peers_banned"] == 1


async def test_the_lists_of_the_operator_decide_who_is_admitted(mock_clock, counters):
    peers = Admission(counters, AccessList(denied=frozenset({"bob"})))
    assert [peers.admits(peer) for peer in ("bob", "carol")] == [False, True]


async def test_nobody_is_admitted_once_the_transport_closes(mock_clock, counters):
    peers = Admission(counters)
    peers.close()
    assert not peers.admits("bob")


def test_offences_of_made_up_identities_do_not_pile_up(monkeypatch, counters):
    monkeypatch.setattr(admission, "MAX_OFFENDERS", 10)
    peers = Admission(counters)
    for number in range(1000):
        peers.record_offence(f"peer {number}", "garbage")
    assert len(peers._offences) <= 10
