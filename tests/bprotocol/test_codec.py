"""A message decodes to what was encoded, and malformed ones are rejected. Covers also `messages`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacalhau_p2p.bprotocol import codec, messages
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import PeerID
from tests.support.peers.example_messages import EXAMPLES, EXECUTION, JOB


def envelope(message: messages.Message) -> Envelope:
    return Envelope(id=MessageID(b"i" * 16), message=message, to=PeerID("bob"), sent=12.5)


def wire(**changes: object) -> bytes:
    """A bid's frame as plain CBOR, with some keys changed."""
    return cbor2.dumps({**cbor2.loads(codec.encode_frame(envelope(EXAMPLES[3]))), **changes})


def test_examples_cover_every_kind():
    assert {example.kind for example in EXAMPLES} == set(messages.KINDS)


def test_a_component_handles_every_kind():
    of_nodes = (messages.NodeInfoPublished, messages.Greeting, messages.Ack)
    handled = [*messages.TO_REQUESTER, *messages.TO_COMPUTE, *of_nodes]
    assert sorted(kind.kind for kind in handled) == sorted(messages.KINDS)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.kind)
def test_a_frame_decodes_to_what_was_encoded(message):
    assert codec.decode_frame(codec.encode_frame(envelope(message))) == envelope(message)


def test_a_broadcast_carries_several_messages_in_order():
    envelopes = [envelope(message) for message in EXAMPLES]
    assert codec.decode_broadcast(codec.encode_broadcast(envelopes)) == envelopes


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.kind)
@pytest.mark.parametrize("count", [1, 30, codec.MAX_ACKS])
def test_acknowledgements_are_added_to_an_encoded_frame(message, count):
    acks = tuple(codec.MessageID(number.to_bytes(16, "big")) for number in range(count))
    frame = codec.with_acks(codec.encode_frame(envelope(message)), acks)
    assert codec.decode_frame(frame) == replace(envelope(message), acks=acks)


def test_too_many_acknowledgements_on_a_frame_are_rejected():
    many = [codec.MessageID(bytes(16))] * (codec.MAX_ACKS + 1)
    with pytest.raises(ValueError, match="too many acknowledgements"):
        codec.with_acks(wire(), many)
    with pytest.raises(RemoteProtocolError, match="acks"):
        codec.decode_frame(wire(acks=many))
    with pytest.raises(RemoteProtocolError, match="acks"):
        codec.decode_frame(wire(acks=[b"short"]))


@pytest.mark.parametrize("count", [1, 5, 23, 24, 255, 256, codec.MAX_BROADCAST_ENVELOPES])
def test_direct_frames_are_broadcast_unchanged(count):
    one = envelope(EXAMPLES[3])
    joined = codec.join_frames([codec.encode_frame(one)] * count)
    assert codec.decode_broadcast(joined) == [one] * count
    assert joined == cbor2.dumps(cbor2.loads(joined))


@pytest.mark.parametrize("count", [0, codec.MAX_BROADCAST_ENVELOPES + 1])
def test_no_broadcast_has_no_frames_or_too_many(count):
    with pytest.raises(ValueError, match="a broadcast carries 1 to"):
        codec.join_frames([b"frame"] * count)


def test_ids_are_in_the_envelope_and_not_in_the_body():
    plain = cbor2.loads(codec.encode_frame(envelope(EXAMPLES[3])))
    assert (plain["job"], plain["execution"], plain["kind"]) == (JOB, EXECUTION, "bid")
    assert "job_id" not in plain["body"]


def test_unknown_kinds_and_fields_are_ignored():
    with pytest.raises(codec.UnknownKind):
        codec.decode_frame(wire(kind="later_invention"))
    assert codec.decode_frame(wire(later="field")) == codec.decode_frame(wire())
    known = cbor2.loads(wire())["body"]
    assert codec.decode_frame(wire(body={**known, "later": 1})) == codec.decode_frame(wire())


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"id": b"short"},
        {"id": "i" * 16},
        {"kind": 7},
        {"job": None},
        {"execution": ""},
        {"execution": "x" * 129},
        {"body": []},
        {"body": {}},
        {"body": {"round": 1, "reserved_for": "30"}},
        {"body": {"round": True, "reserved_for": 30.0}},
        {"body": {"round": 0, "reserved_for": 30.0}},
        {"body": {"round": 1, "reserved_for": -1.0}},
        {"sent": "now"},
    ],
    ids=str,
)
def test_a_malformed_envelope_is_the_peers_fault(changes):
    with pytest.raises(RemoteProtocolError):
        codec.decode_frame(wire(**changes))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"\x9f\x01\xff",  # an indefinite array
        b"\xa2\x61a\x01\x61a\x02",  # the same key twice
        b"\xc1\x1a\x00\x00\x00\x00",  # tag 1, a date
        b"\xd8\x23\x61a",  # tag 35, a regular expression
        b"\xd9\xd9\xf7\x80",  # tag 55799, "this is CBOR"
        b"\xd8\x1c\x80",  # tag 28, a shared value
        b"\x81" * 200 + b"\x80",  # deep nesting
        wire() + b"\x00",  # something after the end
        cbor2.dumps([1]),
        cbor2.dumps("text"),
    ],
    ids=lambda payload: payload[:8].hex() or "empty",
)
def test_anything_but_plain_cbor_is_rejected(payload):
    with pytest.raises(RemoteProtocolError):
        codec.decode_frame(payload)


def test_a_broadcast_is_an_array_of_limited_length():
    with pytest.raises(RemoteProtocolError):
        codec.decode_broadcast(wire())
    many = cbor2.dumps([cbor2.loads(wire(kind="unknown"))] * (codec.MAX_BROADCAST_ENVELOPES + 1))
    with pytest.raises(RemoteProtocolError):
        codec.decode_broadcast(many)


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_protocol_errors(payload):
    for decode in (codec.decode_frame, codec.decode_broadcast):
        with suppress(RemoteProtocolError):
            decode(payload)


@given(st.data())
def test_a_damaged_frame_raises_nothing_but_protocol_errors(data):
    frame = bytearray(codec.encode_frame(envelope(data.draw(st.sampled_from(EXAMPLES)))))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with suppress(RemoteProtocolError):
        codec.decode_frame(bytes(frame))
