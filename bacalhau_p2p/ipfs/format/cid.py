"""Content identifiers: the name of a block is made from its bytes.

Written here because no tested package is both right and quick to import; the multiformats that
matter to UnixFS are few.
"""

from __future__ import annotations

import hashlib
from base64 import b32decode, b32encode
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from bacalhau_p2p.encoding.varint import decode_varint, encode_varint
from bacalhau_p2p.errors import InvalidCID, InvalidContent

RAW = 0x55
"""Multicodec: the block is content, as it is."""
DAG_PB = 0x70
"""Multicodec: the block is a protobuf node with links (UnixFS)."""
SHA2_256 = 0x12
"""Multihash code of the one hash function that is fetched, served and stored."""

_DIGEST = 32
_MAX_BINARY = 160
_MAX_TEXT = 320
_V1_HEADS = {codec: bytes((1, codec, SHA2_256, _DIGEST)) for codec in (RAW, DAG_PB)}
_FETCHABLE = frozenset(_V1_HEADS.values())
_V0_HEAD = bytes((SHA2_256, _DIGEST))
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, order=True)
class CID:
    """A CID by its binary form (`bytes(cid)`); equal when those bytes are equal.

    Any well-formed CID can be held, so that an error can name it; `fetchable` says whether this
    node handles its codec and hash.
    """

    binary: bytes

    def __post_init__(self) -> None:
        head = self.binary[:4]
        if len(self.binary) == 36 and head in _FETCHABLE:
            return
        if len(self.binary) == 34 and head[:2] == _V0_HEAD:
            return
        _split_v1(self.binary)

    @classmethod
    def parse(cls, text: str) -> Self:
        """A CID from its text: base32 (`bafy...`), base58 (`Qm...`, `z...`), base36 (`k...`) or hex (`f...`).

        Raises InvalidCID, also for an `ipfs://` prefix or a path behind the CID.
        """
        if not text:
            raise InvalidCID("a CID is missing: the text is empty")
        if len(text) > _MAX_TEXT or not text.isascii() or not text.isalnum():
            raise InvalidCID(f"{_shorten(text)} is not a CID")
        try:
            binary = _decode_text(text)
        except ValueError:
            raise InvalidCID(f"{_shorten(text)} is not a CID") from None
        try:
            return cls(binary)
        except InvalidCID as error:
            raise InvalidCID(f"{_shorten(text)} is not a CID: {error}") from None

    @classmethod
    def of(cls, codec: int, block: bytes | bytearray | memoryview) -> Self:
        """The CIDv1 of a block, under sha2-256."""
        head = _V1_HEADS.get(codec) or b"\x01" + encode_varint(codec) + _V0_HEAD
        return cls(head + hashlib.sha256(block).digest())

    @classmethod
    def read(cls, data: bytes, offset: int = 0) -> tuple[Self, int]:
        """The CID that begins at `offset` of `data`, and the offset after it. Raises InvalidCID."""
        if data[offset : offset + 2] == _V0_HEAD:
            end = offset + 34
        elif data[offset : offset + 4] in _FETCHABLE:
            end = offset + 36
        else:
            end = _end_of_v1(data, offset)
        if end > len(data):
            raise InvalidCID("the CID is cut short")
        return cls(data[offset:end]), end

    @property
    def version(self) -> int:
        return 0 if self.binary[:2] == _V0_HEAD else 1

    @property
    def codec(self) -> int:
        """The multicodec of the block: `RAW`, `DAG_PB`, or one that is not handled here."""
        codec = self.binary[1]
        if self.binary[0] == 1 and codec < 0x80:
            return codec
        return DAG_PB if self.version == 0 else decode_varint(self.binary, 1)[0]

    @property
    def hash_code(self) -> int:
        """The multihash code: `SHA2_256`, or one that is not handled here."""
        return SHA2_256 if self.version == 0 else _split_v1(self.binary)[1]

    @property
    def digest(self) -> bytes:
        """The hash of the block, without its multihash prefix."""
        if self.fetchable:
            return self.binary[-_DIGEST:]
        return _split_v1(self.binary)[2]

    @property
    def fetchable(self) -> bool:
        """Whether it is a raw or dag-pb block under sha2-256: all that UnixFS needs."""
        return self.binary[:4] in _FETCHABLE or self.binary[:2] == _V0_HEAD

    @property
    def v1(self) -> CID:
        """The same content as CIDv1, so that both spellings of a dag-pb block compare equal."""
        return CID(_V1_HEADS[DAG_PB] + self.digest) if self.binary[:2] == _V0_HEAD else self

    def require_fetchable(self) -> None:
        """Raises InvalidContent, which names the codec or hash that is not handled here."""
        if self.fetchable:
            return
        if self.hash_code != SHA2_256:
            raise InvalidContent(f"{self} uses hash function 0x{self.hash_code:x}; only sha2-256 is accepted")
        raise InvalidContent(f"{self} has codec 0x{self.codec:x}; only raw and dag-pb are accepted")

    def verify(self, block: bytes | bytearray | memoryview) -> bool:
        """Whether `block` is what this CID names. A CID that is not fetchable verifies nothing."""
        return self.fetchable and hashlib.sha256(block).digest() == self.binary[-_DIGEST:]

    def __hash__(self) -> int:
        return hash(self.binary)  # which bytes remember; CIDs are looked up more often than all else

    def __bytes__(self) -> bytes:
        return self.binary

    def __str__(self) -> str:
        if self.version == 0:
            return _encode_base58(self.binary)
        return _encode_base32(self.binary)

    def __repr__(self) -> str:
        return f"CID({str(self)!r})"


def _end_of_v1(data: bytes, offset: int) -> int:
    """Where the CIDv1 that begins at `offset` ends."""
    try:
        version, at = decode_varint(data, offset)
        if version != 1:
            raise InvalidCID(f"version {version} is unknown")
        _, at = decode_varint(data, at)
        _, at = decode_varint(data, at)
        length, at = decode_varint(data, at)
    except (IndexError, ValueError):
        raise InvalidCID("the CID is cut short or malformed") from None
    end = at + length
    if end - offset > _MAX_BINARY:
        raise InvalidCID(f"a digest of {length} bytes is too long")
    return end


def _split_v1(binary: bytes) -> tuple[int, int, bytes]:
    """Codec, hash code and digest of a CIDv1. Raises InvalidCID unless it fills `binary` exactly."""
    end = _end_of_v1(binary, 0)
    if end != len(binary):
        raise InvalidCID("its length is wrong")
    codec, at = decode_varint(binary, 1)
    hash_code, at = decode_varint(binary, at)
    length, at = decode_varint(binary, at)
    if hash_code == SHA2_256 and length != _DIGEST:
        raise InvalidCID(f"a sha2-256 digest has 32 bytes, not {length}")
    return codec, hash_code, binary[at:]


@lru_cache(maxsize=4096)
def _decode_text(text: str) -> bytes:
    """The binary form behind a multibase text. Raises ValueError."""
    if len(text) == 46 and text.startswith("Qm"):
        return _decode_digits(text, _BASE58)
    base, digits = text[0], text[1:]
    if base in "bB":
        wanted = digits.upper()
        if digits != (wanted if base == "B" else digits.lower()):
            raise ValueError("wrong case")
        binary = b32decode(wanted + "=" * (-len(wanted) % 8))
        if b32encode(binary).rstrip(b"=").decode("ascii") != wanted:
            raise ValueError("not the canonical text")
        return binary
    if base == "z":
        return _decode_digits(digits, _BASE58)
    if base == "k":
        return _decode_digits(digits, _BASE36)
    if base == "f":
        return bytes.fromhex(digits)
    raise ValueError("unknown multibase")


def _decode_digits(digits: str, alphabet: str) -> bytes:
    number = 0
    for digit in digits:
        number = number * len(alphabet) + alphabet.index(digit)
    zeros = len(digits) - len(digits.lstrip(alphabet[0]))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


@lru_cache(maxsize=4096)
def _encode_base32(binary: bytes) -> str:
    return "b" + b32encode(binary).decode("ascii").lower().rstrip("=")


def _encode_base58(binary: bytes) -> str:
    number = int.from_bytes(binary, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return digits


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
