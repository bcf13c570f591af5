"""Requests to nodes that are slow, silent or busy: `client.py` with the timeouts of `limits.py`."""

from __future__ import annotations

import trio

from bacalhau_p2p.ipfs.dht.limits import ANSWER_TIMEOUT, STREAMS_PER_PEER
from bacalhau_p2p.model.base import PeerID
from tests.support.networks.dht_net import PROTOCOL, cid, opened, until


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
