"""Our gossip: signatures, order, and py-libp2p's own gossipsub at the other end."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.rsa import create_new_key_pair as create_new_rsa_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.validators import signature_validator
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.testing.transports import TOPIC, expect, open_connected
from bacalhau_p2p.transports.interface import Broadcast
from bacalhau_p2p.transports.libp2p.gossip import signatures
from bacalhau_p2p.transports.libp2p.gossip.pubsub import PAUSE_AFTER
from bacalhau_p2p.transports.libp2p.gossip.signatures import is_signed_by_its_author, signed_bytes
from bacalhau_p2p.transports.libp2p.gossip.writer import encode_rpc
from bacalhau_p2p.transports.libp2p.transport import open_libp2p
from tests.support.peers.stock_peers import stream_on

PATIENCE = 20


def signed(pair, data: bytes = b"for everybody", topic: str = TOPIC, seqno: int = 1):
    message = rpc_pb2.Message(
        data=data,
        topicIDs=[topic],
        from_id=ID.from_pubkey(pair.public_key).to_bytes(),
        seqno=seqno.to_bytes(8, "big"),
    )
    message.signature = pair.private_key.sign(signed_bytes(message))
    message.key = pair.public_key.serialize()
    return message


# --- signatures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("create", [create_new_key_pair, create_new_rsa_key_pair])
def test_what_an_author_signed_is_taken_and_nothing_else(create):
    pair, other = create(), create()
    message = signed(pair)
    assert is_signed_by_its_author(message)
    assert signature_validator(message)  # py-libp2p agrees
    for name, value in {
        "data": b"for nobody",
        "seqno": b"2",
        "from_id": ID.from_pubkey(other.public_key).to_bytes(),
        "signature": bytes(len(message.signature)),
    }.items():
        forged = signed(pair)
        setattr(forged, name, value)
        assert not is_signed_by_its_author(forged)
    forged = signed(pair)
    forged.topicIDs[0] = "another"
    assert not is_signed_by_its_author(forged)


@pytest.mark.parametrize("signature", [b"", b"short", bytes(65)])
def test_what_is_no_signature_is_refused(signature):
    message = signed(create_new_key_pair())
    message.signature = signature
    assert not is_signed_by_its_author(message)


def test_the_ids_that_strangers_claim_are_not_kept_however_long():
    message = signed(create_new_key_pair())
    signatures._ed25519_key.cache_clear()
    message.from_id = bytes(500_000)
    message.key = b""
    assert not is_signed_by_its_author(message)
    assert signatures._ed25519_key.cache_info().currsize == 0


@pytest.mark.network
async def test_a_message_is_verified_once_by_each_who_hears_it_and_not_by_its_author(monkeypatch):
    verified = []
    verify = signatures.crypto_sign_open

    def counting(signed_message, key):
        verified.append(signed_message)
        return verify(signed_message, key)

    async with open_connected(open_libp2p, 3) as (author, _, listener):
        monkeypatch.setattr(signatures, "crypto_sign_open", counting)
        await author.broadcast(TOPIC, b"for everybody")
        assert (await expect(listener, Broadcast)).payload == b"for everybody"
        assert len(verified) == 2


# --- what arrives -----------------------------------------------------------------------------------------


@pytest.mark.network
async def test_messages_of_one_author_arrive_in_order():
    payloads = [b"%d" % number for number in range(5 * PAUSE_AFTER)]
    async with open_connected(open_libp2p) as (author, listener):
        for payload in payloads:
            await author.broadcast(TOPIC, payload)
        assert [(await expect(listener, Broadcast)).payload for _ in payloads] == payloads


@pytest.mark.network
async def test_a_message_that_its_author_did_not_sign_is_an_offence_of_who_passes_it_on():
    pair = create_new_key_pair()
    forged = signed(pair, b"forged", seqno=1)
    forged.signature = bytes(64)
    good = signed(pair, b"good", seqno=2)
    async with open_libp2p(Identity.generate()) as transport:
        await transport.subscribe(TOPIC)
        async with stream_on(transport.addresses[0], "/meshsub/1.1.0") as stream:
            for message in (forged, good):
                await stream.write(encode_rpc(rpc_pb2.RPC(publish=[message])))
            heard = await expect(transport, Broadcast)
        assert heard == Broadcast(ID.from_pubkey(pair.public_key).to_base58(), TOPIC, b"good")
        assert transport.counters["offences"] == transport.counters["gossip_faults"] == 1


@pytest.mark.network
async def test_a_message_in_our_own_name_is_not_heard():
    pair = create_new_key_pair(bytes(31) + b"1")
    async with open_libp2p(Identity.generate(bytes(31) + b"1")) as transport:
        await transport.subscribe(TOPIC)
        async with stream_on(transport.addresses[0], "/meshsub/1.1.0") as stream:
            ours, another = signed(pair, b"ours"), signed(create_new_key_pair(), b"another")
            for message in (ours, another):
                await stream.write(encode_rpc(rpc_pb2.RPC(publish=[message])))
            assert (await expect(transport, Broadcast)).payload == b"another"


@pytest.mark.network
async def test_a_message_that_comes_twice_is_heard_once():
    pair = create_new_key_pair()
    async with open_libp2p(Identity.generate()) as transport:
        await transport.subscribe(TOPIC)
        async with stream_on(transport.addresses[0], "/meshsub/1.1.0") as stream:
            for number in (1, 1, 2):
                await stream.write(
                    encode_rpc(rpc_pb2.RPC(publish=[signed(pair, b"%d" % number, seqno=number)]))
                )
            assert [(await expect(transport, Broadcast)).payload for _ in range(2)] == [b"1", b"2"]


@pytest.mark.network
async def test_a_flood_of_gossip_leaves_other_tasks_their_turn():
    """Also when it comes in one read."""
    pair = create_new_key_pair()
    count = 20 * PAUSE_AFTER
    flood = rpc_pb2.RPC(publish=[signed(pair, b"x", seqno=number) for number in range(count)])
    async with open_libp2p(Identity.generate()) as transport:
        await transport.subscribe(TOPIC)
        batches = []
        async with stream_on(transport.addresses[0], "/meshsub/1.1.0") as stream:
            await stream.write(encode_rpc(flood))
            with trio.fail_after(PATIENCE):
                while sum(batches) < count:
                    await transport.incoming.receive()
                    batches.append(1 + transport.incoming.statistics().current_buffer_used)
                    for _ in range(batches[-1] - 1):
                        transport.incoming.receive_nowait()
        assert max(batches) <= 2 * PAUSE_AFTER


# --- py-libp2p's own --------------------------------------------------------------------------------------


@asynccontextmanager
async def stock_gossip():
    """A host of py-libp2p that is subscribed to TOPIC, and its subscription."""
    host = new_host(create_new_key_pair(secrets.token_bytes(32)))
    gossip = GossipSub(["/meshsub/1.1.0"], 6, 4, 12, heartbeat_interval=1)
    pubsub = Pubsub(host, gossip)
    async with background_trio_service(pubsub), background_trio_service(gossip):
        await pubsub.wait_until_ready()
        subscription = await pubsub.subscribe(TOPIC)
        async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            yield host, pubsub, subscription


@pytest.mark.network
@pytest.mark.parametrize("we_dial", [True, False])
async def test_gossip_with_a_stock_peer_goes_both_ways(we_dial):
    async with stock_gossip() as (host, pubsub, subscription), open_libp2p(Identity.generate()) as transport:
        await transport.subscribe(TOPIC)
        with trio.fail_after(PATIENCE):
            if we_dial:
                await transport.connect(str(host.get_addrs()[0]))
            else:
                await host.connect(info_from_p2p_addr(Multiaddr(transport.addresses[0])))
            our_id = ID.from_base58(transport.peer_id)
            await pubsub.wait_for_peer(our_id, PATIENCE)
            await pubsub.wait_for_subscription(our_id, TOPIC, PATIENCE)
            heard = None
            while heard is None:  # what it publishes before its heartbeat has taken us into its mesh is lost
                await pubsub.publish(TOPIC, b"from py-libp2p")
                with trio.move_on_after(0.5):
                    heard = await expect(transport, Broadcast)
            assert heard == Broadcast(host.get_id().to_base58(), TOPIC, b"from py-libp2p")
            await transport.broadcast(TOPIC, b"from us")
            while (message := await subscription.get()).data != b"from us":
                pass
            assert message.from_id == our_id.to_bytes()
        await transport.disconnect(host.get_id().to_base58())


@pytest.mark.network
async def test_large_and_small_broadcasts_to_one_neighbour_stay_whole():
    """Small ones are written at once, large ones wait for the window; none may come between their parts."""
    sizes = [300_000, 10, 500_000, 20, 30, 400_000, 40]
    payloads = [secrets.token_bytes(size) for size in sizes]
    async with open_connected(open_libp2p) as (author, listener):
        for payload in payloads:
            await author.broadcast(TOPIC, payload)
            await author.send(listener.peer_id, b"a frame between")
        heard = {(await expect(listener, Broadcast)).payload for _ in payloads}
        assert heard == set(payloads)
        assert "gossip_faults" not in listener.counters
