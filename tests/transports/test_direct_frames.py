from __future__ import annotations

import pytest

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.interface import MAX_FRAME
from bacalhau_p2p.transports.libp2p_links import FrameReader, encode_varint


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (MAX_FRAME, "808040")],
)
def test_varints_are_those_of_the_multiformats_specification(number, encoded):
    assert encode_varint(number).hex() == encoded


def framed(*payloads: bytes) -> bytes:
    return b"".join(encode_varint(len(payload)) + payload for payload in payloads)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 100, 100_000])
def test_frames_come_out_whole_whatever_the_pieces(piece):
    payloads = [b"", b"a", b"b" * 127, b"c" * 128, b"", b"d" * 20_000, b"e"]
    sent = framed(*payloads)
    reader = FrameReader()
    received = []
    for start in range(0, len(sent), piece):
        received += reader.feed(sent[start : start + piece])
    assert received == payloads


def test_a_half_frame_waits_for_its_other_half():
    reader = FrameReader()
    assert reader.feed(framed(b"first", b"second")[:-1]) == [b"first"]
    assert reader.feed(b"d") == [b"second"]


@pytest.mark.parametrize(
    "header", [encode_varint(MAX_FRAME + 1), b"\xff\xff\xff", b"\x80\x80\x80\x80\x01", encode_varint(2**40)]
)
def test_a_longer_frame_than_allowed_is_refused_before_it_comes(header):
    with pytest.raises(RemoteProtocolError, match="longer"):
        FrameReader().feed(header)


def test_the_longest_frame_is_taken():
    assert FrameReader().feed(framed(bytes(MAX_FRAME))) == [bytes(MAX_FRAME)]
