"""Unsigned LEB128 varints, as multiformats, protobuf and CAR use them."""

from __future__ import annotations

MAX_VARINT = 10
"""Bytes of the longest varint: ten hold 64 bits."""


def encode_varint(number: int) -> bytes:
    """The shortest varint of a non-negative number."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode_varint(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int]:
    """The number at `offset`, and the offset after it.

    Raises IndexError when `data` ends inside the varint, ValueError when it is longer than 64 bits or
    not the shortest form.
    """
    byte = data[offset]
    if byte < 0x80:
        return byte, offset + 1
    number = byte & 0x7F
    for position in range(1, MAX_VARINT):
        byte = data[offset + position]
        number |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            if byte == 0 or number >= 1 << 64:
                break
            return number, offset + position + 1
    raise ValueError("malformed varint")
