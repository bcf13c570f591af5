"""A newcomer always gets in: the silent and the many make room, and peers with work never."""

from __future__ import annotations

from contextlib import AsyncExitStack
from math import inf

import pytest
import trio

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.testing.transports.bench import PATIENCE
from bacalhau_p2p.transports.libp2p import swarm
from bacalhau_p2p.transports.libp2p.inbound_slots import WORKING, InboundSlots, place_of
from bacalhau_p2p.transports.libp2p.transport import open_libp2p


@pytest.fixture
def silence():
    """How long each peer has been silent; others never answered."""
    return {}


@pytest.fixture
def slots(silence):
    return InboundSlots(4, lambda peer: silence.get(peer, inf))


def connect(slots, peer, host="192.0.2.1"):
    slot = slots.take(host)
    if slot is not None:
        slot.peer = peer
    return slot


def dropped(*taken) -> list[str]:
    return [slot.peer for slot in taken if slot.scope.cancel_called]


async def test_the_oldest_that_never_answered_makes_room_for_a_newcomer(slots):
    taken = [connect(slots, f"silent-{number}") for number in range(4)]
    assert connect(slots, "newcomer") is not None
    assert dropped(*taken) == ["silent-0"]
    assert connect(slots, "another") is not None
    assert dropped(*taken) == ["silent-0", "silent-1"]


async def test_a_peer_with_work_is_never_trimmed(slots, silence):
    silence.update({f"working-{number}": WORKING - 1 for number in range(4)})
    taken = [connect(slots, f"working-{number}") for number in range(4)]
    assert connect(slots, "newcomer") is None
    assert dropped(*taken) == []
    slots.give_back(taken[0])
    assert connect(slots, "newcomer") is not None


async def test_who_answered_long_ago_makes_room_only_if_all_others_work(slots, silence):
    silence.update({"old": WORKING + 1, "working": 1})
    taken = [connect(slots, peer) for peer in ("old", "working", "silent-1", "silent-2")]
    for _ in range(2):
        connect(slots, "working")
    assert dropped(*taken) == ["silent-1", "silent-2"]
    connect(slots, "working")
    assert dropped(*taken) == ["old", "silent-1", "silent-2"]


async def test_the_place_with_the_most_connections_makes_room_first(slots):
    alone = connect(slots, "alone", "198.51.100.7")
    many = [connect(slots, f"many-{number}", f"192.0.2.{number}") for number in range(3)]
    connect(slots, "newcomer", "203.0.113.5")
    assert dropped(alone, *many) == ["many-0"]


async def test_connections_that_have_not_authenticated_yet_are_left_to_their_own_limit(slots):
    waiting = [slots.take("192.0.2.1") for _ in range(4)]
    assert slots.take("192.0.2.2") is None
    assert not any(slot.scope.cancel_called for slot in waiting)


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
    ],
)
def test_addresses_of_one_network_are_one_place(host, place):
    assert place_of(host) == place


async def test_silent_peers_do_not_keep_a_newcomer_out_of_a_node(monkeypatch):
    monkeypatch.setattr(swarm, "MAX_CONNECTIONS", 8)
    async with open_libp2p(Identity.generate()) as node, AsyncExitStack() as stack:
        for _ in range(10):
            peer = await stack.enter_async_context(open_libp2p(Identity.generate()))
            await peer.connect(node.addresses[0])
        with trio.fail_after(PATIENCE):
            while len(node.peers) > 7 or peer.peer_id not in node.peers:
                await trio.lowlevel.checkpoint()
        assert node.counters["connections_trimmed"] == 3
