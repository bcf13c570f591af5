from __future__ import annotations

import pytest

from bacalhau_p2p.encoding.framing import encode_frame, take_frame
from bacalhau_p2p.encoding.varint import encode_varint
from bacalhau_p2p.errors import RemoteProtocolError


def test_frames_are_taken_from_the_front_one_by_one():
    buffer = bytearray(encode_frame(b"first") + encode_frame(b"") + encode_frame(b"x" * 300) + b"\x05par")
    taken = [take_frame(buffer, 1000, "test") for _ in range(4)]
    assert taken == [b"first", b"", b"x" * 300, None]
    assert buffer == b"\x05par"


@pytest.mark.parametrize("partial", [b"", b"\x80", b"\x03ab"])
def test_an_incomplete_frame_stays_in_the_buffer(partial):
    buffer = bytearray(partial)
    assert take_frame(buffer, 1000, "test") is None
    assert buffer == partial


def test_a_frame_above_the_limit_is_refused_before_its_message_arrives():
    with pytest.raises(RemoteProtocolError, match="a test message has 1001 bytes; the limit is 1000"):
        take_frame(bytearray(encode_varint(1001)), 1000, "test")
    assert take_frame(bytearray(encode_varint(1000)), 1000, "test") is None


def test_a_malformed_length_is_refused():
    with pytest.raises(RemoteProtocolError, match="malformed length of a test message"):
        take_frame(bytearray(b"\x80\x00"), 1000, "test")
