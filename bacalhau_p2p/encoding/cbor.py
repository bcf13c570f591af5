"""CBOR from a stranger: plain data of one item, or RemoteProtocolError."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO

from cbor2 import CBORDecodeEOF, CBORDecodeError, CBORDecoder

from bacalhau_p2p.errors import RemoteProtocolError


def strict_loads(payload: bytes, *, max_depth: int) -> object:
    """Decode one item of plain data that fills `payload`. Raises RemoteProtocolError.

    Refused: tags, indefinite lengths, repeated keys, trailing bytes, nesting deeper than `max_depth`.
    """
    decoder = CBORDecoder(
        BytesIO(payload),
        tag_hook=_refuse_tag,
        semantic_decoders=_NO_TAGS,
        max_depth=max_depth,
        allow_indefinite=False,
        allow_duplicate_keys=False,
    )
    try:
        value = decoder.decode()
    except (CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError(f"not plain CBOR: {error}") from error
    with suppress(CBORDecodeEOF):
        decoder.read(1)
        raise RemoteProtocolError("bytes after the end of a CBOR item")
    return value


def _refuse_tag(*args: object) -> object:
    raise RemoteProtocolError("a CBOR tag, where only plain data is allowed")


_KNOWN_TAGS = (*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
_NO_TAGS: dict[int, Callable[..., object]] = dict.fromkeys(_KNOWN_TAGS, _refuse_tag)
"""cbor2 decodes these by itself unless each is taken from it; an empty map leaves them all in place."""
