"""CBOR from a peer: plain data, or RemoteProtocolError.

Plain data is what JSON has, and bytes: maps with text keys, arrays, text, bytes, integers of 64 bits, finite
floats, booleans and null. So whatever is accepted can be stored, read again and sent on.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from io import BytesIO
from math import isfinite

from cbor2 import CBORDecodeEOF, CBORDecodeError, CBORDecoder

from bacalhau_p2p.errors import RemoteProtocolError

MAX_TAGS = 100
"""Tags in an array whose items are refused one by one. Each costs a call."""
MAX_VALUES = 200_000
"""Maps, arrays and their values in one item. A reconcile of 10,000 executions has about 40,000."""


def strict_loads(payload: bytes, *, max_depth: int) -> object:
    """Decode the one item that fills `payload`.

    Raises RemoteProtocolError for tags, indefinite lengths, repeated keys, trailing bytes, nesting deeper
    than `max_depth` containers inside the outermost, and for values that are not plain data.
    """
    value = _loads(payload, max_depth, tags_allowed=0)
    require_plain(value)
    return value


def loads_unchecked(payload: bytes, *, max_depth: int) -> object:
    """Decode the one item that fills `payload`. The parts of it that are used need `require_plain`.

    For an array whose items are accepted or refused one by one. Raises RemoteProtocolError as `strict_loads`
    does, except for values that are not plain data, and for up to MAX_TAGS tags.
    """
    return _loads(payload, max_depth, tags_allowed=MAX_TAGS)


def _loads(payload: bytes, max_depth: int, *, tags_allowed: int) -> object:
    tagged = _TagHook(tags_allowed)
    decoder = CBORDecoder(
        BytesIO(payload),
        tag_hook=tagged,
        semantic_decoders=dict.fromkeys(_KNOWN_TAGS, tagged),
        max_depth=max_depth,
        allow_indefinite=False,
        allow_duplicate_keys=False,
    )
    collects = gc.isenabled()
    gc.disable()  # a million empty lists make the collector run for half a second
    try:
        value = decoder.decode()
    except (CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError(f"not plain CBOR: {error.__cause__ or error}") from error
    finally:
        if collects:
            gc.enable()
    with suppress(CBORDecodeEOF):
        decoder.read(1)
        raise RemoteProtocolError("bytes after the end of a CBOR item")
    return value


def require_plain(value: object) -> None:
    """Raises RemoteProtocolError unless `value` is plain data of at most MAX_VALUES values."""
    waiting, count = [value], 0
    while waiting:
        current = waiting.pop()
        kind = type(current)
        if kind is dict:
            for key in current:  # type: ignore[attr-defined]
                if type(key) is not str:
                    raise RemoteProtocolError("not plain CBOR: a key of a map is not text")
            items = current.values()  # type: ignore[attr-defined]
        elif kind is list:
            items = current
        else:
            items = (current,)
        count += len(items)
        if count > MAX_VALUES:
            raise RemoteProtocolError(f"more than {MAX_VALUES} values in one CBOR item")
        for item in items:
            kind = type(item)
            if kind in _SCALARS:
                continue
            if kind is float:
                if not isfinite(item):
                    raise RemoteProtocolError("not plain CBOR: a number is not finite")
            elif kind is int:
                if not _MIN_INT <= item <= _MAX_INT:
                    raise RemoteProtocolError("not plain CBOR: an integer has more than 64 bits")
            elif kind is dict or kind is list:
                waiting.append(item)
            else:
                raise RemoteProtocolError(
                    f"not plain CBOR: {_NAMES.get(kind, 'simple values are')} not allowed"
                )


class _Tagged:
    """What a tag decodes to: it is never used, only refused."""


class _TagHook:
    """Decodes any tag to `_Tagged`. Raises ValueError for more tags than allowed."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed

    def __call__(self, *args: object) -> object:
        self._allowed -= 1
        if self._allowed < 0:
            raise ValueError("tags are not allowed")
        return _Tagged()


_SCALARS = frozenset({str, bytes, bool, type(None)})
_NAMES = {_Tagged: "tags are"}
_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1
_KNOWN_TAGS = (*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
"""cbor2 decodes these tags itself unless each is replaced; an empty map leaves its decoders in place."""
