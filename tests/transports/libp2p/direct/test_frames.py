"""Frames of a length-prefixed stream: the result does not depend on how the bytes are split into reads."""

from __future__ import annotations

import pytest

from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.encoding.varint import encode_varint
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.interface import MAX_FRAME
from bacalhau_p2p.transports.libp2p.direct.frames import FrameReader


def framed(*payloads: bytes) -> bytes:
    return b"".join(encode_frame(payload) for payload in payloads)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 100, 100_000])
def test_frames_come_out_complete_however_they_are_split(piece):
    payloads = [b"", b"a", b"b" * 127, b"c" * 128, b"", b"d" * 20_000, b"e"]
    sent = framed(*payloads)
    reader = FrameReader()
    received = []
    for start in range(0, len(sent), piece):
        received += reader.feed(sent[start : start + piece])
    assert received == payloads


def test_an_incomplete_frame_waits_for_the_rest():
    reader = FrameReader()
    assert reader.feed(framed(b"first", b"second")[:-1]) == [b"first"]
    assert reader.feed(b"d") == [b"second"]


@pytest.mark.parametrize(
    "header", [encode_varint(MAX_FRAME + 1), b"\xff\xff\xff", b"\x80\x80\x80\x80\x01", encode_varint(2**40)]
)
def test_a_frame_above_the_limit_is_rejected_by_its_header(header):
    with pytest.raises(RemoteProtocolError, match="longer"):
        FrameReader().feed(header)


def test_a_frame_at_the_limit_is_accepted():
    assert FrameReader().feed(framed(bytes(MAX_FRAME))) == [bytes(MAX_FRAME)]
