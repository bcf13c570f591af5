from __future__ import annotations

import pytest

from bacalhau_p2p.encoding.protobuf import bytes_field, read_fields, varint_field


def test_fields_are_encoded_as_in_the_protobuf_documentation():
    assert varint_field(1, 150).hex() == "089601"
    assert bytes_field(2, b"testing").hex() == "120774657374696e67"


def test_fields_are_read_in_their_order_with_their_values():
    data = varint_field(1, 150) + bytes_field(2, b"testing") + bytes_field(2, b"") + varint_field(15, 0)
    assert list(read_fields(data)) == [(1, 150), (2, b"testing"), (2, b""), (15, 0)]


def test_fixed_width_fields_are_read_as_bytes():
    data = bytes((3 << 3 | 5,)) + b"abcd" + bytes((4 << 3 | 1,)) + b"abcdefgh"
    assert list(read_fields(data)) == [(3, b"abcd"), (4, b"abcdefgh")]


@pytest.mark.parametrize("data", [b"\x08", b"\x12", b"\x12\x03ab", b"\x1dabc", b"\x21abcdefg"])
def test_a_message_that_is_cut_short_is_an_index_error(data):
    with pytest.raises(IndexError):
        list(read_fields(data))


@pytest.mark.parametrize("wire_type", [3, 4, 6, 7])
def test_other_wire_types_are_refused(wire_type):
    with pytest.raises(ValueError, match=f"wire type {wire_type} is not supported"):
        list(read_fields(bytes((1 << 3 | wire_type,))))
