from __future__ import annotations

import pytest

from bacalhau_p2p.encoding.varint import encode_varint
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.ipfs.exchange.bitswap.wire import MAX_MESSAGE, Message, Want, take_message
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW

FAR = CID.of(RAW, b"nowhere")
V0 = CID(CID.of(DAG_PB, b"").binary[2:])


def body(message: Message) -> bytes:
    taken = take_message(bytearray(message.encode()))
    assert taken is not None
    return taken


def test_a_message_has_the_bytes_of_the_specification():
    want = Want(cid=FAR, have=True, send_dont_have=True)
    message = Message(wants=[want], blocks=[(CID.of(RAW, b"x"), b"x")], presences=[(FAR, False), (FAR, True)])
    cid = FAR.binary.hex()
    expected = bytes.fromhex(
        f"0a2e 0a2c 0a24{cid} 1001 2001 28011a09 0a0401551220 1201782228 0a24{cid} 10012226 0a24{cid}"
    )
    assert message.encode() == encode_varint(len(expected)) + expected
    assert Message.decode(expected) == message


def test_a_block_requested_by_a_cidv0_has_a_prefix_that_others_understand():
    encoded = body(Message(blocks=[(V0, b"")]))
    assert bytes.fromhex("00701220") in encoded
    assert Message.decode(encoded).blocks == [(V0.v1, b"")]


def test_unsupported_kinds_of_cid_are_left_out():
    other = CID.of(0x71, b"x")
    assert Message.decode(body(Message(wants=[Want(cid=other)], presences=[(other, True)]))) == Message()


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x05\x0a\x10",
        b"\xff" * 11,
        b"\x0a\x04\x0a\x02\x10\x01",
        b"\x22\x04\x0a\x02\x01\x55",
        b"\x1a\x02\x12\x00" * 10_001,
        b"\x1a\x04\x0a\x02\x80\x80",
    ],
    ids=["truncated", "varint", "want without a CID", "CID", "entries", "prefix"],
)
def test_a_malformed_message_is_refused(data):
    with pytest.raises(RemoteProtocolError):
        Message.decode(data)


def test_a_message_that_is_too_long_is_refused_by_its_length_prefix():
    with pytest.raises(RemoteProtocolError, match="the limit is"):
        take_message(bytearray(encode_varint(MAX_MESSAGE + 1)))
    assert take_message(bytearray(encode_varint(MAX_MESSAGE))) is None
