"""CBOR from a peer: one item of plain data, or RemoteProtocolError."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO

from cbor2 import CBORDecodeEOF, CBORDecodeError, CBORDecoder

from bacalhau_p2p.errors import RemoteProtocolError


def strict_loads(payload: bytes, *, max_depth: int) -> object:
    """Decode the one item that fills `payload`.

    Raises RemoteProtocolError for tags, indefinite lengths, repeated keys, trailing bytes and nesting
    deeper than `max_depth` containers inside the outermost.
    """
    decoder = CBORDecoder(
        BytesIO(payload),
        tag_hook=_refuse_tag,
        semantic_decoders=_REFUSE_KNOWN_TAGS,
        max_depth=max_depth,
        allow_indefinite=False,
        allow_duplicate_keys=False,
    )
    try:
        value = decoder.decode()
    except (CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError(f"not plain CBOR: {error.__cause__ or error}") from error
    with suppress(CBORDecodeEOF):
        decoder.read(1)
        raise RemoteProtocolError("bytes after the end of a CBOR item")
    return value


def _refuse_tag(*args: object) -> object:
    raise ValueError("tags are not allowed")


_KNOWN_TAGS = (*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
_REFUSE_KNOWN_TAGS: dict[int, Callable[..., object]] = dict.fromkeys(_KNOWN_TAGS, _refuse_tag)
"""cbor2 decodes these tags itself unless each is replaced; an empty map leaves its decoders in place."""
