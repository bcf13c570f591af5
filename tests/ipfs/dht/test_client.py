"""Requests to nodes that are slow, silent or busy: `client.py` with the timeouts of `limits.py`."""

from __future__ import annotations

from collections import Counter

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.ipfs.dht.client import MAX_ALWAYS_CURRENT, REFRESH_INTERVAL_PER_NODE, DhtClient
from bacalhau_p2p.ipfs.dht.limits import ANSWER_TIMEOUT, STREAMS_PER_PEER
from bacalhau_p2p.ipfs.dht.peerstore import Peerstore
from bacalhau_p2p.ipfs.dht.wire import Contact, Message, MessageType
from bacalhau_p2p.model.base import PeerID
from tests.support.networks.dht_net import PROTOCOL, cid, identity, opened, until


async def silent(peer, stream):
    await trio.sleep_forever()


async def test_200_lookups_at_the_same_time_find_their_providers(autojump_clock):
    async with opened(3, [(0, 1), (0, 2)]) as net:
        for number in range(200):
            net.roots[2].add(cid(number))
            net.nodes[2].provide(cid(number))
        await until(lambda: len(net.nodes[0].records) == 200)
        found: list[set[PeerID]] = []

        async def find(number: int) -> None:
            found.append((await net.find(1, cid(number)))[0])

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(find, number)
        assert found == [{net.transports[2].peer_id}] * 200
        assert net.nodes[1].counters["unresponsive_nodes"] == 0


async def test_requests_that_wait_for_an_unresponsive_node_end_with_its_first_timeout(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        streams = []

        async def count_streams(peer, stream):
            streams.append(stream)
            await trio.sleep_forever()

        net.transports[1].handle_streams(PROTOCOL, count_streams)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(net.find, 0, cid(number))
        assert trio.current_time() - began <= ANSWER_TIMEOUT
        assert len(streams) == STREAMS_PER_PEER


async def test_an_unresponsive_node_delays_one_lookup_and_is_left_out_of_the_next(autojump_clock):
    async with opened(3, [(0, 1), (0, 2)]) as net:
        await net.provide(2, cid(1))
        net.transports[1].handle_streams(PROTOCOL, silent)
        began = trio.current_time()
        assert (await net.find(0, cid(1)))[0] == {net.transports[2].peer_id}
        assert trio.current_time() - began <= ANSWER_TIMEOUT
        began = trio.current_time()
        assert await net.find(0, cid(2)) == (set(), "DHT lookup (1 node)")
        assert trio.current_time() == began


class CountingPeerstore:
    """Knows many nodes, and counts how often it is read."""

    def __init__(self, nodes: int) -> None:
        self.known = [Contact(identity(number).peer_id) for number in range(1, nodes + 1)]
        self.reads = 0
        self.now = 0.0

    def client(self) -> DhtClient:
        def bootstrap() -> list[Contact]:
            self.reads += 1
            return self.known

        async def unreachable(peer, protocol):
            raise PeerUnreachable("nobody is there")

        peerstore = Peerstore(
            bootstrap=bootstrap, add_addresses=lambda peer, addresses: None, own_addresses=tuple
        )
        own = identity(0).peer_id
        return DhtClient(own, PROTOCOL, unreachable, peerstore, lambda: self.now, Counter())


def test_the_nodes_of_a_large_network_are_not_sorted_again_for_each_question():
    peerstore = CountingPeerstore(MAX_ALWAYS_CURRENT + 1)
    client = peerstore.client()
    for _ in range(50):
        assert len(client.contacts()) == MAX_ALWAYS_CURRENT + 1
    assert peerstore.reads == 1
    peerstore.known.pop()
    peerstore.now = MAX_ALWAYS_CURRENT * REFRESH_INTERVAL_PER_NODE
    assert len(client.contacts()) == MAX_ALWAYS_CURRENT + 1
    peerstore.now += 2 * REFRESH_INTERVAL_PER_NODE
    assert len(client.contacts()) == MAX_ALWAYS_CURRENT


def test_what_a_small_network_learns_is_used_at_once():
    peerstore = CountingPeerstore(2)
    client = peerstore.client()
    assert [contact.peer for contact in client.contacts()] == [contact.peer for contact in peerstore.known]
    peerstore.known.append(Contact(identity(0).peer_id))
    peerstore.known.append(Contact(identity(3).peer_id))
    assert len(client.contacts()) == 3


async def test_a_node_that_fails_is_left_out_at_once_in_a_large_network_too():
    peerstore = CountingPeerstore(MAX_ALWAYS_CURRENT + 1)
    client = peerstore.client()
    failing = next(iter(client.contacts()))
    assert await client.ask(failing, Message(type=MessageType.PING)) is None
    assert failing not in list(client.contacts())
    assert peerstore.reads == 1
