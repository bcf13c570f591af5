"""Members of a mesh that bring messages late hold them back, and nobody is left without."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
import trio

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.libp2p.gossip.eager import EAGER, JUDGED_AFTER, EagerLinks
from bacalhau_p2p.transports.libp2p.gossip.lazy import OFFER_AFTER
from bacalhau_p2p.transports.libp2p.gossip.pubsub import HEARTBEAT_INTERVAL
from bacalhau_p2p.transports.libp2p.gossip.wire import Control, encode_control
from tests.support.networks.gossip_net import SLOWEST, TOPIC, gossip_net, random_links

A, B, C, D, E, F = (PeerID(name) for name in "abcdef")
MEMBERS = [A, B, C, D, E, F]


@pytest.fixture
def links():
    links = EagerLinks(Random(1))
    links.heartbeat(MEMBERS)
    return links


def bring(links: EagerLinks, *order: PeerID, times: int = JUDGED_AFTER) -> None:
    """So many messages come from these, one after the other."""
    for _ in range(times):
        for copy, peer in enumerate(order, 1):
            links.came(peer, copy)


def test_those_that_bring_messages_late_are_choked_one_a_second_until_few_are_left(links):
    choked = []
    for _ in range(10):
        bring(links, *[peer for peer in MEMBERS if peer not in choked])
        found = links.heartbeat(MEMBERS)
        assert (len(found.choke) <= 1, found.unchoke) == (True, [])
        choked += found.choke
    assert len(choked) == len(MEMBERS) - EAGER
    assert {A, B}.isdisjoint(choked)


def test_nobody_is_judged_by_a_few_messages(links):
    bring(links, *MEMBERS, times=JUDGED_AFTER - 1)
    assert links.heartbeat(MEMBERS).choke == []


def test_who_brings_most_messages_in_time_is_not_choked(links):
    for _ in range(JUDGED_AFTER):
        for first in range(0, 6, 2):  # each is first or second in a third of all messages
            links.came(MEMBERS[first], 1)
            links.came(MEMBERS[first + 1], 2)
    assert links.heartbeat(MEMBERS).choke == []


def test_when_members_leave_others_are_asked_to_send_at_once_again(links):
    choked = []
    while len(choked) < 3:
        bring(links, *[peer for peer in MEMBERS if peer not in choked])
        choked += links.heartbeat(MEMBERS).choke
    found = links.heartbeat([A, *choked])
    assert (found.choke, len(found.unchoke)) == ([], 2)
    assert set(found.unchoke) < set(choked)


def test_who_has_what_nobody_brought_is_asked_to_send_at_once_again(links):
    bring(links, *MEMBERS)
    (choked,) = links.heartbeat(MEMBERS).choke
    assert links.missed(choked)
    assert not links.missed(choked)
    assert not links.missed(A)
    bring(links, *MEMBERS, times=JUDGED_AFTER // 2)
    assert links.heartbeat(MEMBERS).choke == []


def test_nothing_is_remembered_of_those_that_left(links):
    bring(links, *MEMBERS)
    (choked,) = links.heartbeat(MEMBERS).choke
    links.heartbeat([])
    links.came(choked, 1)
    assert links.heartbeat(MEMBERS).unchoke == []
    assert not links.missed(choked)


# --- in a network -------------------------------------------------------------------------------


async def publish(net, times: int, every: float = 0.1) -> None:
    for _ in range(times):
        author = net.random.choice(net.nodes)
        author.gossip.publish(TOPIC, net.random.randbytes(16))
        await trio.sleep(every)


async def test_after_some_messages_each_comes_less_often_and_as_soon(autojump_clock, monkeypatch):
    async with gossip_net(monkeypatch) as net:
        random_links(net, 20, each=6)
        await net.settle(70)
        await publish(net, 150)
        received, verified = net.total("broadcasts_received"), net.total("broadcasts_verified")
        for number in range(20):
            assert await net.spread(net.nodes[number], b"%d" % number, patience=1.0) < 8 * SLOWEST
        received, verified = (
            net.total("broadcasts_received") - received,
            net.total("broadcasts_verified") - verified,
        )
        assert verified == 20 * 19
        assert received < 4 * verified
        assert [node.offences for node in net.nodes] == [[]] * 20


async def test_messages_go_on_when_those_that_send_at_once_die(autojump_clock, monkeypatch):
    async with gossip_net(monkeypatch) as net:
        random_links(net, 20, each=8)
        await net.settle()
        await publish(net, 150)
        for number in range(10):
            net.end(net.random.choice(net.nodes))
            await net.spread(net.random.choice(net.nodes), b"%d" % number)


async def test_a_member_that_stops_to_pass_messages_on_delays_one_and_no_more(autojump_clock, monkeypatch):
    """All that sent to a node at once are silent, and stay connected."""
    async with gossip_net(monkeypatch) as net:
        random_links(net, 12, each=8)
        await net.settle()
        await publish(net, 150)
        silent = net.nodes[1:8]
        for node in silent:
            monkeypatch.setattr(node.gossip, "_pass_on", lambda *arguments: None)
        honest = [net.nodes[0], *net.nodes[8:]]
        for author in honest:
            await net.spread(author, b"first of " + author.peer.encode(), patience=5.0)


async def test_a_node_whose_senders_withhold_and_promise_gets_each_message_a_heartbeat_later(
    autojump_clock, monkeypatch
):
    """All that send to it at once stop, and offer at once what they will not send."""
    async with gossip_net(monkeypatch) as net:
        victim, author = net.add(), net.add()
        between = [net.add() for _ in range(6)]
        for node in between:
            net.connect(node, victim)
            net.connect(node, author)
        await net.settle()
        for number in range(200):
            author.gossip.publish(TOPIC, b"%d" % number)
            await trio.sleep(0.1)
        choked = [node for node in between if TOPIC in node.streams.get(victim.peer).choked]
        assert len(choked) == len(between) - EAGER
        for node in between:
            if node not in choked:
                monkeypatch.setattr(node.gossip, "_pass_on", partial(promise, node, victim))
                monkeypatch.setattr(node.gossip._lazy, "asked", lambda *arguments: None)
        for number in range(20):
            await net.spread(author, b"withheld %d" % number, patience=HEARTBEAT_INTERVAL + OFFER_AFTER + 0.1)
            for copy in range(JUDGED_AFTER):  # whoever brings it now is late with everything else
                author.gossip.publish(TOPIC, b"%d %d" % (number, copy))
                await trio.sleep(0.1)


def promise(node, victim, identity: bytes, topic: str, frame: bytes) -> None:
    """Offer a message instead of passing it on."""
    control = Control()
    control.ihave.add(topicID=topic, messageIDs=[identity])
    node.streams.get(victim.peer).put(encode_control(control))


async def test_what_was_held_back_is_offered_when_it_is_to_be_sent_at_once_again(autojump_clock, monkeypatch):
    async with gossip_net(monkeypatch) as net:
        author, middle, node = (net.add() for _ in range(3))
        net.connect(author, middle)
        net.connect(middle, node)
        await net.settle()
        node.gossip.meshes._tell_chokes(TOPIC, [middle.peer], [])
        node.streams.flush()
        await trio.sleep(2 * SLOWEST)
        author.gossip.publish(TOPIC, b"held back")
        await trio.sleep(2 * SLOWEST)
        assert node.heard == {}
        node.gossip.meshes._tell_chokes(TOPIC, [], [middle.peer])
        node.streams.flush()
        await trio.sleep(5)
        assert b"held back" in node.heard
