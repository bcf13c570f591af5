"""Messages of the DHT, compared with py-libp2p's protobuf."""

from __future__ import annotations

import random

import base58
import pytest
from libp2p.kad_dht.pb.kademlia_pb2 import Message as Oracle
from multiaddr import Multiaddr

from bacalhau_p2p.encoding.protobuf import bytes_field
from bacalhau_p2p.encoding.varint import encode_varint
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.dht.wire import (
    MAX_ADDRESSES,
    MAX_CONTACTS,
    MAX_MESSAGE,
    Contact,
    Message,
    MessageType,
    peer_key,
    take_message,
)

ALICE = Identity.generate(b"a" * 32).peer_id
BOB = Identity.generate(b"b" * 32).peer_id
KEY = bytes.fromhex("1220") + b"k" * 32


def body(message: Message) -> bytes:
    taken = take_message(bytearray(message.encode()))
    assert taken is not None
    return taken


def test_others_understand_our_messages():
    near = Contact(ALICE, (f"/ip4/192.0.2.1/tcp/1235/p2p/{ALICE}",))
    far = Contact(BOB, (f"/dns4/node.example/tcp/1/p2p/{BOB}", f"/ip6/2001:db8::1/tcp/2/p2p/{BOB}"))
    sent = Oracle.FromString(
        body(Message(type=MessageType.GET_PROVIDERS, key=KEY, closer=(near,), providers=(far,)))
    )
    assert (sent.type, sent.key) == (Oracle.GET_PROVIDERS, KEY)
    assert [(peer.id, list(peer.addrs)) for peer in sent.closerPeers] == [
        (peer_key(ALICE), [Multiaddr("/ip4/192.0.2.1/tcp/1235").to_bytes()])
    ]
    assert [str(Multiaddr(address)) for address in sent.providerPeers[0].addrs] == [
        "/dns4/node.example/tcp/1",
        "/ip6/2001:db8::1/tcp/2",
    ]


def test_what_cannot_be_used_of_a_message_is_left_out():
    sent = Oracle(type=Oracle.ADD_PROVIDER, key=KEY, clusterLevelRaw=10)
    peer = sent.providerPeers.add(id=peer_key(BOB), connection=1)
    for address in (
        "/ip4/192.0.2.1/tcp/1235",
        f"/ip4/192.0.2.1/tcp/1235/p2p/{BOB}",
        "/ip4/192.0.2.1/udp/4001/quic-v1",
        f"/ip4/192.0.2.9/tcp/4001/p2p/{ALICE}/p2p-circuit",
    ):
        peer.addrs.append(Multiaddr(address).to_bytes())
    peer.addrs.append(b"junk")
    sent.closerPeers.add(id=b"")
    received = Message.decode(sent.SerializeToString())
    assert received == Message(
        type=MessageType.ADD_PROVIDER,
        key=KEY,
        providers=(Contact(BOB, (f"/ip4/192.0.2.1/tcp/1235/p2p/{BOB}",)),),
    )


def test_every_type_of_message_survives_a_round_trip():
    for type_ in MessageType:
        message = Message(type=type_, key=KEY, closer=(Contact(ALICE), Contact(BOB)))
        assert Message.decode(body(message)) == message


def test_peers_and_addresses_beyond_the_limits_are_left_out():
    many = tuple(f"/ip4/192.0.2.1/tcp/{port}/p2p/{ALICE}" for port in range(1, 100))
    sent = Oracle(type=Oracle.FIND_NODE, key=KEY)
    for _ in range(100):
        peer = sent.closerPeers.add(id=peer_key(ALICE))
        peer.addrs.extend(Multiaddr(address).to_bytes() for address in many)
    received = Message.decode(sent.SerializeToString())
    assert [len(contact.addresses) for contact in received.closer] == [MAX_ADDRESSES] * MAX_CONTACTS


@pytest.mark.parametrize(
    "data",
    [b"\x08\x63", b"\x12\x05ab", b"\xff" * 12, b"\x12\x51" + b"k" * 81, b"\x0b", b"\x42\x03\x0a\x10a"],
    ids=["kind", "cut", "varint", "key", "group", "contact"],
)
def test_a_malformed_message_is_refused(data):
    with pytest.raises(RemoteProtocolError):
        Message.decode(data)


def test_random_bytes_are_decoded_or_refused():
    rng = random.Random(1)
    for _ in range(3000):
        data = rng.randbytes(rng.randrange(60))
        try:
            Message.decode(data)
        except RemoteProtocolError:
            continue


def test_a_message_that_is_too_long_is_refused_by_its_length_prefix():
    with pytest.raises(RemoteProtocolError, match="the limit is"):
        take_message(bytearray(encode_varint(MAX_MESSAGE + 1)))
    assert take_message(bytearray(encode_varint(MAX_MESSAGE))) is None


@pytest.mark.parametrize("address", [b"\xbc", b"", b"\x04\x01", b"\x35\xff\xff\xff\xff\x0f", b"\x80" * 9])
def test_malformed_addresses_of_strangers_are_left_out(address):
    """libp2p's parser raised a TypeError for one byte 0xbc, which ended the node."""
    body = bytes_field(1, base58.b58decode(ALICE)) + bytes_field(2, address)
    assert Contact.decode(body) == Contact(ALICE)
