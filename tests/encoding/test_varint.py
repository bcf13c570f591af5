from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacalhau_p2p.encoding.varint import decode_varint, encode_varint


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (255, "ff01"), (300, "ac02"), (16384, "808001")],
)
def test_varints_are_those_of_the_multiformats_specification(number, encoded):
    assert encode_varint(number).hex() == encoded
    assert decode_varint(bytes.fromhex(encoded)) == (number, len(encoded) // 2)


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_a_decoded_varint_is_the_encoded_number(number, rest):
    encoded = encode_varint(number)
    assert decode_varint(encoded + rest) == (number, len(encoded))
    assert decode_varint(rest + encoded, len(rest)) == (number, len(rest) + len(encoded))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff"])
def test_a_varint_that_is_cut_short_is_an_index_error(data):
    with pytest.raises(IndexError):
        decode_varint(data)


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff" * 10, b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\x01"])
def test_a_varint_is_refused_above_64_bits_and_in_a_longer_form(data):
    with pytest.raises(ValueError, match="malformed varint"):
        decode_varint(data)
