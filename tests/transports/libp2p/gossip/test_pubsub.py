"""Gossip between our nodes, and with py-libp2p's own gossipsub and floodsub. Covers also `streams`."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.floodsub import FloodSub
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.testing.transports import TOPIC, broadcast_until_received, expect, open_connected
from bacalhau_p2p.transports import budgets
from bacalhau_p2p.transports.interface import Broadcast, PeerConnected
from bacalhau_p2p.transports.libp2p.gossip import pubsub
from bacalhau_p2p.transports.libp2p.gossip.neighbour import PARSING_BURST, PARSING_SHARE
from bacalhau_p2p.transports.libp2p.gossip.pubsub import MAX_OVERHEAD, PAUSE_AFTER
from bacalhau_p2p.transports.libp2p.gossip.wire import encode_rpc
from bacalhau_p2p.transports.libp2p.transport import open_libp2p
from tests.support.networks.gossip_net import TOPIC as TOPIC_OF_NET
from tests.support.networks.gossip_net import gossip_net, random_links
from tests.support.peers.gossip_messages import signed_message
from tests.support.peers.stock_peers import muxed, select, stream_on

pytestmark = pytest.mark.network

PATIENCE = 20


async def test_messages_of_one_author_arrive_in_order():
    payloads = [b"%d" % number for number in range(5 * PAUSE_AFTER)]
    async with open_connected(open_libp2p) as (author, listener):
        for payload in payloads:
            await author.broadcast(TOPIC, payload)
        assert [(await expect(listener, Broadcast)).payload for _ in payloads] == payloads


async def test_passing_on_a_message_with_a_wrong_signature_is_an_offence():
    pair = create_new_key_pair()
    forged = signed_message(pair, b"forged", seqno=1)
    forged.signature = bytes(64)
    good = signed_message(pair, b"good", seqno=2)
    async with open_libp2p(Identity.generate()) as transport:
        await transport.subscribe(TOPIC)
        async with stream_on(transport.addresses[0], "/meshsub/1.1.0") as stream:
            for message in (forged, good):
                await stream.write(encode_rpc(rpc_pb2.RPC(publish=[message])))
            received = await expect(transport, Broadcast)
        assert received == Broadcast(ID.from_pubkey(pair.public_key).to_base58(), TOPIC, b"good")
        assert transport.counters["offences"] == transport.counters["gossip_faults"] == 1


async def test_a_message_in_the_nodes_own_name_is_not_delivered():
    pair = create_new_key_pair(bytes(31) + b"1")
    async with open_libp2p(Identity.generate(bytes(31) + b"1")) as transport:
        await transport.subscribe(TOPIC)
        async with stream_on(transport.addresses[0], "/meshsub/1.1.0") as stream:
            ours, another = signed_message(pair, b"ours"), signed_message(create_new_key_pair(), b"another")
            for message in (ours, another):
                await stream.write(encode_rpc(rpc_pb2.RPC(publish=[message])))
            assert (await expect(transport, Broadcast)).payload == b"another"


async def test_a_repeated_message_is_delivered_once():
    pair = create_new_key_pair()
    async with open_libp2p(Identity.generate()) as transport:
        await transport.subscribe(TOPIC)
        async with stream_on(transport.addresses[0], "/meshsub/1.1.0") as stream:
            for number in (1, 1, 2):
                await stream.write(
                    encode_rpc(rpc_pb2.RPC(publish=[signed_message(pair, b"%d" % number, seqno=number)]))
                )
            assert [(await expect(transport, Broadcast)).payload for _ in range(2)] == [b"1", b"2"]


async def test_a_flood_of_gossip_does_not_starve_other_tasks():
    """Even when it arrives in one read."""
    pair = create_new_key_pair()
    count = 20 * PAUSE_AFTER
    flood = rpc_pb2.RPC(publish=[signed_message(pair, b"x", seqno=number) for number in range(count)])
    async with open_libp2p(Identity.generate()) as transport:
        await transport.subscribe(TOPIC)
        batches = []
        async with stream_on(transport.addresses[0], "/meshsub/1.1.0") as stream:
            await stream.write(encode_rpc(flood))
            with trio.fail_after(PATIENCE):
                while sum(batches) < count:
                    await transport.incoming.receive()
                    batches.append(1 + len(transport.incoming))
                    for _ in range(batches[-1] - 1):
                        transport.incoming.receive_nowait()
        assert max(batches) <= 2 * PAUSE_AFTER


async def test_large_and_small_broadcasts_to_one_neighbour_are_not_mixed():
    """Small ones are written at once and large ones wait for the window; none may split another."""
    sizes = [300_000, 10, 500_000, 20, 30, 400_000, 40]
    payloads = [secrets.token_bytes(size) for size in sizes]
    async with open_connected(open_libp2p) as (author, listener):
        for payload in payloads:
            await author.broadcast(TOPIC, payload)
            await author.send(listener.peer_id, b"a frame between")
        received = {(await expect(listener, Broadcast)).payload for _ in payloads}
        assert received == set(payloads)
        assert "gossip_faults" not in listener.counters


async def test_large_messages_replayed_to_a_newcomer_do_not_garble_those_sent_meanwhile():
    payloads = [bytes([number]) * 400_000 for number in range(6)]
    async with open_libp2p(Identity.generate()) as author, open_libp2p(Identity.generate()) as listener:
        await author.subscribe(TOPIC)
        for payload in payloads[:3]:
            await author.broadcast(TOPIC, payload)
        await listener.subscribe(TOPIC)
        await listener.connect(author.addresses[0])
        await expect(author, PeerConnected)
        for payload in payloads[3:]:
            await author.broadcast(TOPIC, payload)
        received = {(await expect(listener, Broadcast)).payload for _ in payloads}
        assert received == set(payloads)


async def test_gossip_moves_to_another_connection_when_its_own_is_lost():
    async with open_connected(open_libp2p) as (one, other):
        swarm, peer = one._swarm, ID.from_base58(other.peer_id)
        first = swarm.get_connections(peer)[0]
        await swarm.dial_addr(Multiaddr(other.addresses[0]), peer)
        assert len(swarm.get_connections(peer)) == 2
        await first.close()
        for author, listener in ((one, other), (other, one)):
            received = await broadcast_until_received(author, listener, b"still there")
            assert received.author == author.peer_id
        assert set(one.peers) == {other.peer_id}


async def test_messages_of_a_neighbour_above_its_rate_are_dropped(monkeypatch):
    monkeypatch.setattr(budgets, "BROADCAST_BURST", 5.0)
    monkeypatch.setattr(budgets, "BROADCASTS_PER_SECOND", 0.0)
    pair = create_new_key_pair()
    flood = [signed_message(pair, b"%d" % number, seqno=number) for number in range(6)]
    async with open_libp2p(Identity.generate()) as transport:
        await transport.subscribe(TOPIC)
        async with stream_on(transport.addresses[0], "/meshsub/1.1.0") as stream:
            await stream.write(encode_rpc(rpc_pb2.RPC(publish=flood)))
            received = [(await expect(transport, Broadcast)).payload for _ in range(5)]
            assert received == [b"0", b"1", b"2", b"3", b"4"]
            with trio.fail_after(PATIENCE):
                while transport.counters.get("broadcasts_refused", 0) < 1:
                    await trio.lowlevel.checkpoint()


# --- with py-libp2p's own ----------------------------------------------------------------------------------


def stock_router(protocol: str):
    if protocol == "/floodsub/1.0.0":
        return FloodSub([protocol])
    return GossipSub([protocol], 6, 4, 12, heartbeat_interval=1)


@asynccontextmanager
async def stock_gossip(protocol: str):
    """A py-libp2p host that is subscribed to TOPIC, its pubsub and its subscription."""
    host = new_host(create_new_key_pair(secrets.token_bytes(32)))
    router = stock_router(protocol)
    stock_pubsub = Pubsub(host, router)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(background_trio_service(stock_pubsub))
        if isinstance(router, GossipSub):
            await stack.enter_async_context(background_trio_service(router))
        await stock_pubsub.wait_until_ready()
        subscription = await stock_pubsub.subscribe(TOPIC)
        async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            yield host, stock_pubsub, subscription


async def repeat(publish, payload: bytes) -> None:
    """Publish until cancelled: what is sent before the other side knows of it is lost."""
    while True:
        await publish(TOPIC, payload)
        await trio.sleep(0.3)


@pytest.mark.parametrize("protocol", ["/meshsub/1.2.0", "/meshsub/1.1.0", "/floodsub/1.0.0"])
@pytest.mark.parametrize("we_dial", [True, False])
async def test_gossip_with_a_stock_peer_goes_both_ways(we_dial, protocol):
    """Also large messages, of which gossipsub 1.2 tells who has them, and those of a third node."""
    small, large = b"from py-libp2p", secrets.token_bytes(100_000)
    async with (
        stock_gossip(protocol) as (host, stock_pubsub, subscription),
        open_connected(open_libp2p) as (third, transport),
        trio.open_nursery() as nursery,
    ):
        with trio.fail_after(PATIENCE):
            if we_dial:
                await transport.connect(str(host.get_addrs()[0]))
            else:
                await host.connect(info_from_p2p_addr(Multiaddr(transport.addresses[0])))
            our_id = ID.from_base58(transport.peer_id)
            await stock_pubsub.wait_for_peer(our_id, PATIENCE)
            await stock_pubsub.wait_for_subscription(our_id, TOPIC, PATIENCE)
            nursery.start_soon(repeat, stock_pubsub.publish, small)
            for listener in (transport, third):
                received = await expect(listener, Broadcast)
                assert received == Broadcast(host.get_id().to_base58(), TOPIC, small)
            await stock_pubsub.publish(TOPIC, large)
            for listener in (transport, third):
                while (await expect(listener, Broadcast)).payload != large:
                    pass
            for author, payload in ((transport, b"from us"), (third, b"passed on"), (third, large[1:])):
                await author.broadcast(TOPIC, payload)
                while (message := await subscription.get()).data != payload:
                    pass
                assert message.from_id == ID.from_base58(author.peer_id).to_bytes()
        nursery.cancel_scope.cancel()
        assert "offences" not in transport.counters
        await transport.disconnect(host.get_id().to_base58())


# --- limits ----------------------------------------------------------------------------------------


async def keep_using(stream) -> None:
    while True:
        await stream.read(1000)
        await stream.write(b"\x00")


async def test_a_second_gossip_stream_of_a_peer_replaces_its_first():
    """Otherwise each of 64 streams could hold half a message of a megabyte."""
    async with open_libp2p(Identity.generate()) as transport:
        await transport.subscribe(TOPIC)
        async with muxed(transport.addresses[0]) as yamux:
            streams = [await yamux.open_stream() for _ in range(2)]
            for stream in streams:
                await stream.write(select("/meshsub/1.2.0"))
            with trio.fail_after(PATIENCE), pytest.raises(MuxedStreamError):
                await keep_using(streams[0])


async def test_a_neighbour_whose_messages_take_long_to_parse_is_read_later(autojump_clock, monkeypatch):
    async with gossip_net(monkeypatch) as net:
        one, other = net.add(), net.add()
        net.connect(one, other)
        await net.settle()
        flood = rpc_pb2.RPC(publish=[rpc_pb2.Message()] * 100_000)
        took = iter(range(1000))
        other.gossip._budgets.processor = lambda: next(took) * 0.3
        neighbour = one.streams.get(other.peer)
        for _ in range(3):
            neighbour.put(encode_rpc(flood))
        began = trio.current_time()
        one.gossip.publish(TOPIC_OF_NET, b"after the flood")
        await net.settle(20)
        assert other.heard[b"after the flood"] - began > PARSING_BURST / PARSING_SHARE / 2


async def test_messages_that_come_again_and_again_are_an_offence(autojump_clock, monkeypatch):
    monkeypatch.setattr(pubsub, "MAX_REPEATS", 5)
    async with gossip_net(monkeypatch) as net:
        random_links(net, 3, each=2)
        await net.settle()
        author, other, _ = net.nodes
        await net.spread(author, b"once")
        assert other.offences == []
        (frame,) = [message.frame for _, message in author.gossip._recent.newest_first()] or [None]
        neighbour = author.streams.get(other.peer)
        for _ in range(10):
            neighbour.put(frame)
        neighbour.flush()
        await net.settle(0.5)
        assert other.offences == [(author.peer, "more than 5 repeated messages within a second")]


async def test_a_message_of_many_parts_or_with_much_beside_its_data_is_not_passed_on(
    autojump_clock, monkeypatch
):
    pair = create_new_key_pair()
    padded, two_topics = signed_message(pair, b"padded", TOPIC_OF_NET), signed_message(pair, b"two")
    padded.signature += bytes(MAX_OVERHEAD)
    two_topics.topicIDs.append(TOPIC_OF_NET)
    async with gossip_net(monkeypatch) as net:
        random_links(net, 3, each=2)
        await net.settle()
        neighbour = net.nodes[0].streams.get(net.nodes[1].peer)
        for message in (padded, two_topics, signed_message(pair, b"good", TOPIC_OF_NET, seqno=2)):
            neighbour.put(encode_rpc(rpc_pb2.RPC(publish=[message])))
        neighbour.flush()
        await net.settle(1)
        assert [list(node.heard) for node in net.nodes] == [[b"good"]] * 3
        assert net.nodes[1].counters["broadcasts_refused"] == 1


async def test_of_one_rpc_so_many_messages_are_read(autojump_clock, monkeypatch):
    monkeypatch.setattr(pubsub, "MAX_MESSAGES", 3)
    pair = create_new_key_pair()
    several = [signed_message(pair, b"%d" % number, TOPIC_OF_NET, seqno=number) for number in range(5)]
    async with gossip_net(monkeypatch) as net:
        random_links(net, 2, each=1)
        neighbour = net.nodes[0].streams.get(net.nodes[1].peer)
        neighbour.put(encode_rpc(rpc_pb2.RPC(publish=several)))
        neighbour.flush()
        await net.settle(1)
        assert list(net.nodes[1].heard) == [b"0", b"1", b"2"]
