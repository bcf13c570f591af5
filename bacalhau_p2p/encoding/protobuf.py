"""Protobuf messages field by field, for formats that are small enough to read and write by hand."""

from __future__ import annotations

from collections.abc import Iterator

from bacalhau_p2p.encoding.varint import decode_varint, encode_varint

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


def varint_field(number: int, value: int) -> bytes:
    """A field with a non-negative number. `number` is 1 to 15."""
    return bytes((number << 3 | _VARINT,)) + encode_varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field with bytes, text or a message. `number` is 1 to 15."""
    return bytes((number << 3 | _LENGTH_DELIMITED,)) + encode_varint(len(value)) + value


def read_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: an int for a varint, bytes for all other wire types.

    Raises IndexError when `data` ends inside a field, ValueError for a malformed varint and for wire
    types that are unknown or deprecated.
    """
    offset, end = 0, len(data)
    while offset < end:
        key, offset = decode_varint(data, offset)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, offset = decode_varint(data, offset)
            yield number, value
            continue
        if wire_type == _LENGTH_DELIMITED:
            length, offset = decode_varint(data, offset)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"protobuf wire type {wire_type} is not supported")
        if offset + length > end:
            raise IndexError
        yield number, data[offset : offset + length]
        offset += length
