"""The DHT over libp2p streams, with peers that misbehave."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.ipfs.dht.limits import STREAMS_PER_PEER, WAITING_STREAMS_PER_PEER
from bacalhau_p2p.ipfs.dht.peerstore import Peerstore
from bacalhau_p2p.ipfs.dht.service import Dht
from bacalhau_p2p.ipfs.dht.wire import Contact, Message, MessageType, key_of, take_message
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.testing.transports import PATIENCE, open_connected
from bacalhau_p2p.transports.libp2p.transport import open_libp2p

pytestmark = pytest.mark.network
PROTOCOL = "/bacalhau/test/kad/1.0.0"


def served(transport) -> Dht:
    dht = Dht(
        transport.peer_id,
        PROTOCOL,
        transport.open_stream,
        Peerstore(
            bootstrap=lambda: [Contact(peer) for peer in transport.peers],
            add_addresses=lambda peer, addresses: None,
            own_addresses=lambda: transport.addresses,
        ),
        clock=trio.current_time,
    )
    transport.handle_streams(PROTOCOL, dht.serve)
    return dht


async def test_garbage_and_incomplete_messages_do_no_harm_to_the_host_and_its_dht():
    rng, cid = random.Random(3), CID.of(RAW, b"x")
    async with open_connected(open_libp2p, 3) as (stranger, node, friend):
        dht, other = served(node), served(friend)
        for _ in range(30):
            with suppress(trio.BrokenResourceError, PeerUnreachable):
                stream = await stranger.open_stream(node.peer_id, PROTOCOL)
                async with stream:
                    await stream.send_all(rng.randbytes(rng.randrange(1, 3000)))
                    await stream.send_eof()
                    while await stream.receive_some():
                        pass
        incomplete = []
        for _ in range(2 * STREAMS_PER_PEER + WAITING_STREAMS_PER_PEER):
            with suppress(trio.BrokenResourceError, PeerUnreachable):  # streams beyond the limit are reset
                incomplete.append(await stranger.open_stream(node.peer_id, PROTOCOL))
                await incomplete[-1].send_all(b"\x05")
        record = Message(
            type=MessageType.ADD_PROVIDER,
            key=key_of(cid),
            providers=(Contact(friend.peer_id, ("/memory/1",)),),
        )
        with trio.fail_after(PATIENCE):
            stream = await friend.open_stream(node.peer_id, PROTOCOL)
            async with stream:
                await stream.send_all(record.encode())
                await stream.send_eof()
                assert await stream.receive_some() == b""
            assert [contact.peer for contact in dht.records.get(key_of(cid), 0)] == [friend.peer_id]
            found: set[str] = set()
            assert await other.find_providers(cid, found.add) == "DHT lookup (1 node)"
            assert await dht.find_providers(cid, found.add) == "DHT lookup (1 node)"
        assert found == {friend.peer_id}
        assert set(node.peers) == {stranger.peer_id, friend.peer_id}


async def test_a_burst_of_streams_of_one_peer_is_answered():
    question = Message(type=MessageType.FIND_NODE, key=key_of(CID.of(RAW, b"x"))).encode()
    answers = []
    async with open_connected(open_libp2p, 2) as (asker, node):
        dht = served(node)

        async def ask() -> None:
            stream = await asker.open_stream(node.peer_id, PROTOCOL)
            async with stream:
                await stream.send_all(question)
                await stream.send_eof()
                received = bytearray()
                while piece := await stream.receive_some():
                    received += piece
            answers.append(Message.decode(take_message(received) or b"").type)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(STREAMS_PER_PEER + WAITING_STREAMS_PER_PEER):
                    nursery.start_soon(ask)
            assert answers == [MessageType.FIND_NODE] * (STREAMS_PER_PEER + WAITING_STREAMS_PER_PEER)
            burst = served(asker)
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(burst.find_providers, CID.of(RAW, b"%d" % number), lambda peer: None)
        assert burst.counters["lookups"] == 100
        assert burst.counters["unresponsive_nodes"] == 0
        assert dht.counters["unresponsive_nodes"] == 0
