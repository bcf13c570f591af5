"""CBOR from a peer: plain data, or RemoteProtocolError.

Plain data is what JSON has, and bytes: maps with text keys, arrays, text, bytes, integers of 64 bits, finite
floats, booleans and null. So whatever is accepted can be stored, read again and sent on.
"""

from __future__ import annotations

import gc
import threading
from io import BytesIO
from math import isfinite

from cbor2 import CBORDecodeEOF, CBORDecodeError, CBORDecoder

from bacalhau_p2p.errors import RemoteProtocolError

MAX_TAGS = 100
"""Tags in an array whose items are refused one by one. Each costs a call."""
MAX_VALUES = 200_000
"""Maps, arrays and their values in one item. A reconcile of 10,000 executions has about 40,000."""
MAX_CONTAINERS = 30_000
"""Maps and arrays in one item. They are the values that cost most, and take no more than a byte each."""


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
    _check_containers(payload)
    reusable = _decoders.by_depth
    decoder = reusable.pop(max_depth, None) or _Decoder(max_depth)
    value = decoder.decode(payload, tags_allowed)
    reusable[max_depth] = decoder  # one that raised may be in the middle of something
    return value


class _Decoder:
    """Decodes one item after the other: to make a decoder takes longer than to decode most messages."""

    def __init__(self, max_depth: int) -> None:
        self._tagged = _TagHook()
        self._decoder = CBORDecoder(
            BytesIO(),
            tag_hook=self._tagged,
            semantic_decoders=dict.fromkeys(_KNOWN_TAGS, self._tagged),
            max_depth=max_depth,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )

    def decode(self, payload: bytes, tags_allowed: int) -> object:
        """Raises RemoteProtocolError; then use another decoder."""
        decoder = self._decoder
        self._tagged.allowed = tags_allowed
        decoder.fp = BytesIO(payload)
        collects = gc.isenabled()
        gc.disable()  # a million empty lists make the collector run for half a second
        try:
            value = decoder.decode()
        except (CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise RemoteProtocolError(f"not plain CBOR: {error.__cause__ or error}") from error
        finally:
            if collects:
                gc.enable()
        try:
            decoder.read(1)
        except CBORDecodeEOF:
            decoder.fp = BytesIO()  # the payload is not kept
            return value
        raise RemoteProtocolError("bytes after the end of a CBOR item")


class _Decoders(threading.local):
    """The decoders of one thread that are not in use, by their depth."""

    def __init__(self) -> None:
        self.by_depth: dict[int, _Decoder] = {}


_decoders = _Decoders()


def _check_containers(payload: bytes) -> None:
    """Raises RemoteProtocolError for more than MAX_CONTAINERS maps and arrays, before any of them is made.

    Only a payload that has so many bytes with which one may begin is looked at value by value. Malformed data
    passes, and is left to the decoder.
    """
    if len(payload) <= MAX_CONTAINERS or len(payload.translate(None, _NO_CONTAINER)) <= MAX_CONTAINERS:
        return
    at, containers, size = 0, 0, _SIZES
    try:
        for _ in range(MAX_VALUES):
            head = payload[at]
            if 0x80 <= head < 0xC0:
                containers += 1
                if containers > MAX_CONTAINERS:
                    raise RemoteProtocolError(f"more than {MAX_CONTAINERS} maps and arrays in one CBOR item")
            skip = size[head]
            if skip > 0:
                at += skip
            else:  # text or bytes, after as many bytes of its length
                text = at + 1 - skip
                at = text + int.from_bytes(payload[at + 1 : text], "big")
    except IndexError:  # the end
        return
    raise RemoteProtocolError(f"more than {MAX_VALUES} values in one CBOR item")


def _sizes() -> list[int]:
    """For each first byte of a value: how many bytes the value takes, without what is in it if it is a map or
    an array; below zero, how many bytes of the length of a text follow."""
    sizes = [1] * 256
    for major in range(8):
        is_text = major in (2, 3)
        for low in range(24):
            sizes[major << 5 | low] = 1 + low if is_text else 1
        for low, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
            sizes[major << 5 | low] = -width if is_text else 1 + width
    return sizes


_SIZES = _sizes()
_NO_CONTAINER = bytes(set(range(256)) - set(range(0x80, 0xC0)))


def array_length(payload: bytes) -> int | None:
    """How many items the array has that `payload` begins with, read from its first bytes; None: no array."""
    if not payload or not 0x80 <= payload[0] <= 0x9B:
        return None
    short = payload[0] & 0x1F
    if short < 24:
        return short
    return int.from_bytes(payload[1 : 1 + (1 << (short - 24))], "big")


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

    def __init__(self) -> None:
        self.allowed = 0

    def __call__(self, *args: object) -> object:
        self.allowed -= 1
        if self.allowed < 0:
            raise ValueError("tags are not allowed")
        return _Tagged()


_SCALARS = frozenset({str, bytes, bool, type(None)})
_NAMES = {_Tagged: "tags are"}
_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1
_KNOWN_TAGS = (*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
"""cbor2 decodes these tags itself unless each is replaced; an empty map leaves its decoders in place."""
