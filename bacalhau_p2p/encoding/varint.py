"""Unsigned LEB128 varints, as multiformats, protobuf and CAR use them, and messages with such a length."""

from __future__ import annotations

from bacalhau_p2p.errors import RemoteProtocolError

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
    """The number that begins at `offset`, and the offset after it.

    Raises IndexError when `data` ends inside the varint, ValueError when it is longer than 64
    bits or not the shortest form.
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


def take_message(buffer: bytearray, most: int, kind: str) -> bytes | None:
    """Remove the message at the front of `buffer`, which has its length in front; None while it is not all
    there. Raises RemoteProtocolError, which calls it `kind`, for one of more than `most` bytes."""
    try:
        length, start = decode_varint(buffer)
    except IndexError:
        return None
    except ValueError:
        raise RemoteProtocolError(f"a {kind} message has a malformed length") from None
    if length > most:
        raise RemoteProtocolError(f"a {kind} message of {length} bytes; at most {most} are allowed")
    if len(buffer) < start + length:
        return None
    body = bytes(memoryview(buffer)[start : start + length])
    del buffer[: start + length]
    return body
