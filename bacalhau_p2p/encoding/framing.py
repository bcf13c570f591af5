"""Frames: a message with its length in front, as an unsigned varint."""

from __future__ import annotations

from bacalhau_p2p.encoding.varint import decode_varint, encode_varint
from bacalhau_p2p.errors import RemoteProtocolError


def encode_frame(message: bytes) -> bytes:
    """The message with its length in front."""
    return encode_varint(len(message)) + message


def take_frame(buffer: bytearray, limit: int, kind: str) -> bytes | None:
    """Remove the first frame of `buffer` and return its message; None while it is incomplete.

    Raises RemoteProtocolError, which calls the message `kind`, for more than `limit` bytes and for a
    malformed length.
    """
    try:
        length, start = decode_varint(buffer)
    except IndexError:
        return None
    except ValueError:
        raise RemoteProtocolError(f"malformed length of a {kind} message") from None
    if length > limit:
        raise RemoteProtocolError(f"a {kind} message has {length} bytes; the limit is {limit}")
    if len(buffer) < start + length:
        return None
    message = bytes(memoryview(buffer)[start : start + length])
    del buffer[: start + length]
    return message
