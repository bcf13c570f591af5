"""Finding providers through the DHT: `service.py`, `lookup.py` and `peerstore.py`."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.encoding.protobuf import bytes_field, varint_field
from bacalhau_p2p.ipfs.dht.limits import ANSWER_TIMEOUT
from bacalhau_p2p.ipfs.dht.lookup import MAX_NODES_PER_LOOKUP
from bacalhau_p2p.ipfs.dht.wire import Contact, Message, MessageType, peer_key, take_message
from tests.support.networks.dht_net import PROTOCOL, cid, identity, opened


async def test_a_node_finds_a_provider_that_it_never_met(autojump_clock):
    async with opened(3, [(0, 1), (1, 2)]) as net:
        await net.provide(0, cid(1))
        provider = net.transports[0].peer_id
        assert await net.find(2, cid(1)) == ({provider}, "DHT lookup (2 nodes)")
        assert net.learned[2][provider] == tuple(net.transports[0].addresses)
        stream = await net.transports[2].open_stream(provider, PROTOCOL)  # at the address that it learned
        await stream.aclose()


async def test_in_a_line_of_30_nodes_every_root_is_found_from_everywhere(autojump_clock):
    async with opened(30, [(number, number + 1) for number in range(29)], lookup_each_key=True) as net:
        for number in range(0, 30, 3):
            await net.provide(number, cid(number))
        for number in range(0, 30, 3):
            for finder in (0, 7, 29):
                if finder != number:
                    found, _ = await net.find(finder, cid(number))
                    assert found == {net.transports[number].peer_id}


async def test_a_lookup_without_result_says_how_many_nodes_it_asked(autojump_clock):
    async with opened(3, [(0, 1), (1, 2)]) as net:
        assert await net.find(0, cid(1)) == (set(), "DHT lookup (2 nodes)")
    async with opened(1, []) as net:
        assert await net.find(0, cid(1)) == (set(), "DHT lookup (0 nodes)")


async def test_a_client_provides_and_finds_and_gets_no_requests(autojump_clock):
    async with opened(3, [(1, 0), (2, 0)], clients=2) as net:
        await net.provide(1, cid(1))
        assert await net.find(2, cid(1)) == ({net.transports[1].peer_id}, "DHT lookup (1 node)")
        assert len(net.nodes[0].records) == 1
        assert len(net.nodes[1].records) == len(net.nodes[2].records) == 0


async def test_a_lookup_ends_although_a_liar_names_more_and_more_nodes(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        answers = 0

        async def lie(peer, stream):
            nonlocal answers
            request = Message.decode(take_message(bytearray(await stream.receive_some())) or b"")
            answers += 1
            invented = (identity(1000 + 20 * answers + number).peer_id for number in range(20))
            closer = tuple(Contact(peer, ("/memory/2",)) for peer in invented)
            await stream.send_all(Message(type=request.type, key=request.key, closer=closer).encode())

        net.transports[1].handle_streams(PROTOCOL, lie)
        with trio.fail_after(ANSWER_TIMEOUT * MAX_NODES_PER_LOOKUP):
            assert await net.find(0, cid(1)) == (set(), "DHT lookup (1 node)")


@pytest.mark.parametrize("address", [b"\xbc", b"", b"\xff" * 200, b"\x04\x7f\x00\x00\x01", bytes(1000)])
async def test_an_answer_with_bytes_that_are_no_address_is_as_good_as_one_without(autojump_clock, address):
    async with opened(3, [(0, 1), (0, 2)]) as net:
        await net.provide(2, cid(1))
        contact = bytes_field(1, peer_key(identity(7).peer_id)) + bytes_field(2, address)
        message = b"".join((varint_field(1, MessageType.GET_PROVIDERS), bytes_field(8, contact)))

        async def answer(peer, stream):
            await stream.receive_some()
            await stream.send_all(encode_frame(message))
            await stream.send_eof()

        net.transports[1].handle_streams(PROTOCOL, answer)
        assert (await net.find(0, cid(1)))[0] == {net.transports[2].peer_id}
