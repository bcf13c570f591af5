"""Announcing roots: together, again before they expire, and to as few nodes as possible."""

from __future__ import annotations

import trio

from bacalhau_p2p.ipfs.dht.provider_store import RECORD_LIFETIME
from bacalhau_p2p.ipfs.dht.reprovider import SCAN_INTERVAL
from tests.support.networks.dht_net import PROTOCOL, DhtNet, cid, opened, until


def record_streams(net: DhtNet, number: int) -> list:
    """The peers that open a stream to a node from now on, one entry a stream."""
    opened_by = []
    serve = net.nodes[number].serve

    async def recorded(peer, stream):
        opened_by.append(peer)
        await serve(peer, stream)

    net.transports[number].handle_streams(PROTOCOL, recorded)
    return opened_by


async def test_150_roots_are_announced_on_one_stream(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        streams = record_streams(net, 1)
        for number in range(150):
            net.nodes[0].provide(cid(number))
            net.nodes[0].provide(cid(number))  # no effect the second time
        await until(lambda: net.nodes[1].counters["records_added"] == 150)
        assert len(streams) == 1
        net.nodes[0].provide(cid(7))
        await trio.sleep(60)
        assert len(streams) == 1


async def test_a_node_without_peers_announces_its_roots_when_one_connects(autojump_clock):
    async with opened(2, []) as net:
        net.nodes[0].provide(cid(1))
        await trio.sleep(60)
        await net.connect(1, 0)
        await until(lambda: net.nodes[1].records)
        assert (await net.find(1, cid(1)))[0] == {net.transports[0].peer_id}


async def test_records_are_renewed_before_they_expire_unless_the_root_was_unpinned(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        await net.provide(0, cid(1))
        await net.provide(0, cid(2))
        net.roots[0].discard(cid(2))
        await trio.sleep(3 * RECORD_LIFETIME)
        assert (await net.find(1, cid(1)))[0] == {net.transports[0].peer_id}
        assert (await net.find(1, cid(2)))[0] == set()


async def test_roots_that_were_pinned_before_the_start_are_announced(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        net.roots[0].add(cid(3))
        await trio.sleep(SCAN_INTERVAL + 10)
        assert (await net.find(1, cid(3)))[0] == {net.transports[0].peer_id}


async def test_a_peer_that_restarts_without_its_records_is_told_again(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        await net.provide(0, cid(1))
        net.nodes[0].disconnected(net.transports[1].peer_id)
        net.restart(1)
        assert len(net.nodes[1].records) == 0
        await trio.sleep(2 * SCAN_INTERVAL)
        assert len(net.nodes[1].records) == 1
        assert (await net.find(1, cid(1)))[0] == {net.transports[0].peer_id}


async def test_in_a_small_network_only_connected_peers_are_told_and_lookups_ask_all(autojump_clock):
    async with opened(4, [(0, 1), (1, 2), (1, 3)]) as net:
        assert (await net.find(0, cid(9)))[1] == "DHT lookup (3 nodes)"  # now it knows them all
        await net.transports[0].disconnect(net.transports[2].peer_id)
        await net.transports[0].disconnect(net.transports[3].peer_id)
        await net.provide(0, cid(1))
        assert [len(node.records) for node in net.nodes] == [0, 1, 0, 0]
        for finder in (2, 3):
            assert (await net.find(finder, cid(1)))[0] == {net.transports[0].peer_id}


async def test_an_idle_node_sends_nothing(autojump_clock):
    async with opened(3, [(0, 1), (1, 2)]) as net:
        await net.provide(0, cid(1))
        streams = [record_streams(net, number) for number in range(3)]
        await trio.sleep(3600)
        assert streams == [[], [], []]
