"""Messages of the DHT, compared with those of py-libp2p's protobuf."""

from __future__ import annotations

import random

import pytest
from libp2p.kad_dht.pb.kademlia_pb2 import Message as Oracle
from multiaddr import Multiaddr

from bacalhau_p2p.encoding.varint import encode_varint
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.dht.wire import (
    MAX_ADDRESSES,
    MAX_CONTACTS,
    MAX_MESSAGE,
    Contact,
    Kind,
    Message,
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


def test_what_we_say_is_what_others_understand():
    near = Contact(ALICE, (f"/ip4/192.0.2.1/tcp/1235/p2p/{ALICE}",))
    far = Contact(BOB, (f"/dns4/node.example/tcp/1/p2p/{BOB}", f"/ip6/2001:db8::1/tcp/2/p2p/{BOB}"))
    said = Oracle.FromString(
        body(Message(kind=Kind.GET_PROVIDERS, key=KEY, closer=(near,), providers=(far,)))
    )
    assert (said.type, said.key) == (Oracle.GET_PROVIDERS, KEY)
    assert [(peer.id, list(peer.addrs)) for peer in said.closerPeers] == [
        (peer_key(ALICE), [Multiaddr("/ip4/192.0.2.1/tcp/1235").to_bytes()])
    ]
    assert [str(Multiaddr(address)) for address in said.providerPeers[0].addrs] == [
        "/dns4/node.example/tcp/1",
        "/ip6/2001:db8::1/tcp/2",
    ]


def test_what_others_say_is_understood_as_far_as_it_can_be_used():
    said = Oracle(type=Oracle.ADD_PROVIDER, key=KEY, clusterLevelRaw=10)
    peer = said.providerPeers.add(id=peer_key(BOB), connection=1)
    for address in (
        "/ip4/192.0.2.1/tcp/1235",
        f"/ip4/192.0.2.1/tcp/1235/p2p/{BOB}",
        "/ip4/192.0.2.1/udp/4001/quic-v1",
        f"/ip4/192.0.2.9/tcp/4001/p2p/{ALICE}/p2p-circuit",
    ):
        peer.addrs.append(Multiaddr(address).to_bytes())
    peer.addrs.append(b"junk")
    said.closerPeers.add(id=b"")
    heard = Message.decode(said.SerializeToString())
    assert heard == Message(
        kind=Kind.ADD_PROVIDER,
        key=KEY,
        providers=(Contact(BOB, (f"/ip4/192.0.2.1/tcp/1235/p2p/{BOB}",)),),
    )


def test_every_message_comes_back_as_it_was():
    for kind in Kind:
        message = Message(kind=kind, key=KEY, closer=(Contact(ALICE), Contact(BOB)))
        assert Message.decode(body(message)) == message


def test_more_peers_and_addresses_than_are_allowed_are_left_out():
    many = tuple(f"/ip4/192.0.2.1/tcp/{port}/p2p/{ALICE}" for port in range(1, 100))
    said = Oracle(type=Oracle.FIND_NODE, key=KEY)
    for _ in range(100):
        peer = said.closerPeers.add(id=peer_key(ALICE))
        peer.addrs.extend(Multiaddr(address).to_bytes() for address in many)
    heard = Message.decode(said.SerializeToString())
    assert [len(contact.addresses) for contact in heard.closer] == [MAX_ADDRESSES] * MAX_CONTACTS


@pytest.mark.parametrize(
    "data",
    [b"\x08\x63", b"\x12\x05ab", b"\xff" * 12, b"\x12\x51" + b"k" * 81, b"\x0b", b"\x42\x03\x0a\x10a"],
    ids=["kind", "cut", "varint", "key", "group", "contact"],
)
def test_what_is_malformed_is_a_remote_fault(data):
    with pytest.raises(RemoteProtocolError):
        Message.decode(data)


def test_garbage_is_a_remote_fault_or_harmless():
    rng = random.Random(1)
    for _ in range(3000):
        data = rng.randbytes(rng.randrange(60))
        try:
            Message.decode(data)
        except RemoteProtocolError:
            continue


def test_a_message_that_is_too_long_is_refused_before_it_comes():
    with pytest.raises(RemoteProtocolError, match="the limit is"):
        take_message(bytearray(encode_varint(MAX_MESSAGE + 1)))
    assert take_message(bytearray(encode_varint(MAX_MESSAGE))) is None
