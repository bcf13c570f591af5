"""Gossip among many nodes, on a clock that jumps: who gets what, how often, also while some die."""

from __future__ import annotations

import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2

from bacalhau_p2p.transports.libp2p.gossip import meshes, pubsub
from bacalhau_p2p.transports.libp2p.gossip.mesh import DEGREE_HIGH, DEGREE_LOW
from bacalhau_p2p.transports.libp2p.gossip.meshes import FLOOD_PUBLISH, MAX_TOPIC_LENGTH, MAX_TOPICS
from bacalhau_p2p.transports.libp2p.gossip.pubsub import UNWANTED_SIZE
from bacalhau_p2p.transports.libp2p.gossip.wire import FLOODSUB, encode_rpc
from tests.support.networks.gossip_net import SLOWEST, TOPIC, gossip_net, random_links


@pytest.mark.parametrize("count", [30, 100])
async def test_each_node_gets_a_message_within_a_few_hops_and_not_too_often(
    autojump_clock, monkeypatch, count
):
    async with gossip_net(monkeypatch) as net:
        random_links(net, count, each=6)
        await net.settle(70)  # longer than the back-off of a prune
        links = [node.gossip.meshes.links(TOPIC) for node in net.nodes]
        assert max(links) <= DEGREE_HIGH + 2  # those that had too few when they joined are taken
        # A few may have less, between a prune and the next heartbeat.
        assert sorted(links)[count // 20] >= DEGREE_LOW - 1
        for author in net.nodes[:: count // 5]:
            assert await net.spread(author, author.peer.encode(), patience=1.0) < 6 * SLOWEST
        assert net.total("broadcasts_verified") == 5 * (count - 1)  # once each
        assert net.total("broadcasts_received") < 5 * count * DEGREE_HIGH
        assert net.total("broadcasts_sent") == net.total("broadcasts_received")
        assert [node.offences for node in net.nodes] == [[]] * count


async def test_an_author_with_many_neighbours_sends_to_some_of_them(autojump_clock, monkeypatch):
    async with gossip_net(monkeypatch) as net:
        random_links(net, 30, each=30)
        await net.settle()
        author = net.nodes[0]
        before = author.counters["broadcasts_sent"]
        await net.spread(author, b"x")
        assert author.counters["broadcasts_sent"] - before == FLOOD_PUBLISH


@pytest.mark.parametrize("leaves", [20, 100, 200])
async def test_every_leaf_of_a_star_gets_every_message(autojump_clock, monkeypatch, leaves):
    """Those that the hub has no room for are offered what came."""
    async with gossip_net(monkeypatch) as net:
        hub = net.add()
        for _ in range(leaves):
            net.connect(net.add(), hub)
        await net.settle(70)  # longer than the back-off of a prune
        for author in (hub, net.nodes[1], net.nodes[-1]):
            took = await net.spread(author, author.peer.encode())
            assert leaves > 100 or took < 4 * SLOWEST


async def test_messages_go_on_when_the_hub_that_all_dialled_dies(autojump_clock, monkeypatch):
    async with gossip_net(monkeypatch) as net:
        hub = net.add()
        for _ in range(30):
            net.connect(net.add(), hub)
            for other in net.random.sample(net.nodes[:-1], min(3, len(net.nodes) - 1)):
                net.connect(net.nodes[-1], other)
        await net.settle()
        net.end(hub)
        for author in net.nodes[:5]:
            await net.spread(author, author.peer.encode())


async def test_messages_go_on_while_one_node_after_the_other_dies(autojump_clock, monkeypatch):
    async with gossip_net(monkeypatch) as net:
        random_links(net, 30, each=8)
        await net.settle()
        for number in range(15):
            net.end(net.random.choice(net.nodes))
            await net.spread(net.random.choice(net.nodes), b"%d" % number)


async def test_nodes_that_join_one_by_one_get_what_comes_and_what_came_lately(autojump_clock, monkeypatch):
    async with gossip_net(monkeypatch) as net:
        net.add()
        for number in range(40):
            author = net.random.choice(net.nodes)
            author.gossip.publish(TOPIC, b"before %d" % number)
            newcomer = net.add()
            net.connect(newcomer, net.random.choice(net.nodes[:-1]))
            await net.settle(1)
            assert await net.spread(newcomer, b"of the newcomer %d" % number) < 2
            assert await net.spread(net.nodes[0], b"to all %d" % number) < 2
        assert sum(b"before 39" in node.heard for node in net.nodes) == 40  # all but its author


async def test_a_large_message_is_sent_less_often_since_those_that_have_it_say_so(
    autojump_clock, monkeypatch
):
    received = []
    for told_from in (10**9, UNWANTED_SIZE):
        monkeypatch.setattr(pubsub, "UNWANTED_SIZE", told_from)
        async with gossip_net(monkeypatch) as net:
            random_links(net, 30, each=6)
            await net.settle()
            for number in range(3):
                await net.spread(net.nodes[number], bytes([number]) * 200_000)
            received.append(net.total("broadcasts_received"))
    assert received[1] < 0.9 * received[0]


async def test_neighbours_without_gossipsub_get_everything(autojump_clock, monkeypatch):
    async with gossip_net(monkeypatch) as net:
        random_links(net, 20, each=6)
        old = net.add()
        for other in net.nodes[:2]:
            net.connect(old, other, protocol=FLOODSUB)
        await net.settle()
        await net.spread(net.nodes[10], b"to the old one")
        await net.spread(old, b"of the old one")
        assert old.gossip.meshes.links(TOPIC) == 0


async def test_topics_of_a_neighbour_are_bounded_and_those_of_no_use_answer_nothing(
    autojump_clock, monkeypatch
):
    async with gossip_net(monkeypatch) as net:
        one, other = net.add(), net.add()
        net.connect(one, other)
        await net.settle()
        neighbour, seen = one.streams.get(other.peer), other.streams.get(one.peer)
        for start in range(0, 3 * MAX_TOPICS, MAX_TOPICS):
            rpc = rpc_pb2.RPC()
            for number in range(start, start + 2 * MAX_TOPICS):
                rpc.subscriptions.add(subscribe=True, topicid=f"{number}")
                rpc.control.graft.add(topicID=f"{number}")
            rpc.subscriptions.add(subscribe=True, topicid="x" * (MAX_TOPIC_LENGTH + 1))
            neighbour.put(encode_rpc(rpc))
        neighbour.flush()
        await net.settle(1)
        assert len(seen.topics) == MAX_TOPICS
        assert seen.early_grafts == {}
        assert seen.waiting == 0
        unsubscribe = rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=False, topicid=TOPIC)])
        neighbour.put(encode_rpc(unsubscribe))
        neighbour.flush()
        await net.settle(0.5)
        assert TOPIC not in seen.topics
        assert other.gossip.meshes.links(TOPIC) == 0


async def test_peers_that_a_prune_names_are_not_dialled_or_remembered(autojump_clock, monkeypatch):
    async with gossip_net(monkeypatch) as net:
        one, other = net.add(), net.add()
        net.connect(one, other)
        await net.settle()
        rpc = rpc_pb2.RPC()
        prune = rpc.control.prune.add(topicID=TOPIC, backoff=2**63)
        for number in range(1_000):
            prune.peers.add(peerID=b"%d" % number, signedPeerRecord=bytes(100))
        neighbour = one.streams.get(other.peer)
        neighbour.put(encode_rpc(rpc))
        neighbour.flush()
        await net.settle(0.5)
        assert other.gossip.meshes.links(TOPIC) == 0
        assert list(other.streams.neighbours) == [one.peer]


async def test_of_one_rpc_so_many_control_messages_are_read(autojump_clock, monkeypatch):
    monkeypatch.setattr(meshes, "MAX_CONTROLS", 3)
    async with gossip_net(monkeypatch) as net:
        one, other = net.add(), net.add()
        net.connect(one, other)
        await net.settle()
        rpc = rpc_pb2.RPC()
        for number in range(10):
            rpc.control.ihave.add(topicID=TOPIC, messageIDs=[b"%d" % number])
        neighbour = one.streams.get(other.peer)
        neighbour.put(encode_rpc(rpc))
        neighbour.flush()
        with trio.move_on_after(0.1):
            await trio.sleep_forever()
        assert other.counters["broadcasts_asked_for"] == 3
