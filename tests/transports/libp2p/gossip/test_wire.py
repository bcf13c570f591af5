"""The wire format of gossip, against py-libp2p's classes."""

from __future__ import annotations

from random import Random

import pytest
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.pubsub.pb import rpc_pb2

from bacalhau_p2p.encoding.varint import encode_varint
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.libp2p.direct.frames import FrameReader
from bacalhau_p2p.transports.libp2p.gossip.signatures import bare_bytes
from bacalhau_p2p.transports.libp2p.gossip.wire import (
    RPC,
    Control,
    encode_control,
    encode_message,
    encode_rpc,
    message_id,
    peek_message_id,
)
from tests.support.peers.gossip_messages import signed_message

PAIR = create_new_key_pair(bytes(32))


def unframed(frame: bytes) -> bytes:
    (encoded,) = FrameReader().feed(frame)
    return encoded


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 16_383, 16_384, 500_000])
def test_an_encoded_message_is_that_of_py_libp2p(size):
    message = signed_message(PAIR, bytes(size))
    theirs = rpc_pb2.RPC(publish=[message])
    assert encode_message(bare_bytes(message), message.signature, message.key) == encode_rpc(theirs)


def test_a_message_without_a_key_is_encoded_without_one():
    message = signed_message(PAIR)
    message.ClearField("key")
    theirs = rpc_pb2.RPC(publish=[message])
    assert encode_message(bare_bytes(message), message.signature, b"") == encode_rpc(theirs)


def test_control_messages_are_read_by_py_libp2p_and_its_by_us():
    control = Control()
    control.ihave.add(topicID="t", messageIDs=[b"one", b"two"])
    control.iwant.add(messageIDs=[b"three"])
    control.graft.add(topicID="t", links=3)
    control.prune.add(topicID="u", backoff=60)
    control.idontwant.add(messageIDs=[b"four"])
    theirs = rpc_pb2.RPC.FromString(unframed(encode_control(control)))
    assert theirs.control.graft[0].topicID == "t"  # which ignores the number of links
    assert (theirs.control.prune[0].topicID, theirs.control.prune[0].backoff) == ("u", 60)
    theirs.control.prune[0].peers.add(peerID=b"x" * 40)
    ours = RPC.FromString(theirs.SerializeToString())
    assert [graft.topicID for graft in ours.control.graft] == ["t"]
    assert ours.control.idontwant[0].messageIDs == [b"four"]


@pytest.mark.parametrize("size", [0, 200, 20_000, 400_000])
def test_the_id_of_a_message_is_read_without_parsing_it(size):
    message = signed_message(PAIR, bytes(size), seqno=7)
    encoded = unframed(encode_message(bare_bytes(message), message.signature, message.key))
    assert peek_message_id(encoded) == message_id(message)
    assert peek_message_id(unframed(encode_rpc(rpc_pb2.RPC(publish=[message])))) == message_id(message)


def test_what_is_not_one_message_alone_must_be_parsed():
    message = signed_message(PAIR)
    several = rpc_pb2.RPC(publish=[message, message])
    with_more = rpc_pb2.RPC(publish=[message], subscriptions=[rpc_pb2.RPC.SubOpts(topicid="t")])
    without_author = rpc_pb2.RPC(publish=[rpc_pb2.Message(data=b"x", seqno=b"1")])
    without_number = rpc_pb2.RPC(publish=[rpc_pb2.Message(data=b"x", from_id=b"a")])
    for rpc in (several, with_more, without_author, without_number, rpc_pb2.RPC()):
        assert peek_message_id(rpc.SerializeToString()) is None


def test_no_bytes_make_the_reading_of_an_id_fail():
    """What it reads of garbage does not matter: who sends it only hides its own message."""
    random, encoded = Random(1), rpc_pb2.RPC(publish=[signed_message(PAIR)]).SerializeToString()
    read = 0
    for _ in range(20_000):
        changed = bytearray(encoded[: random.randrange(len(encoded))])
        for _ in range(random.randrange(4)):
            if changed:
                changed[random.randrange(len(changed))] = random.randrange(256)
        read += peek_message_id(bytes(changed)) is not None
    assert read < 20_000
    assert peek_message_id(b"") is None


@pytest.mark.parametrize("length", [2**20 + 1, 2**32, 2**60])
def test_a_frame_that_is_too_long_is_refused_before_it_comes(length):
    with pytest.raises(RemoteProtocolError, match="longer than"):
        FrameReader("gossip message").feed(encode_varint(length))
