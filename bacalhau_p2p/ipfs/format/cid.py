"""Content identifiers (CIDs): the name of a block is derived from its bytes.

Written here because no tested package is both correct and fast to import, and UnixFS needs few of the
multiformats.
"""

from __future__ import annotations

import hashlib
from base64 import b32decode, b32encode
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import base58

from bacalhau_p2p.encoding.varint import decode_varint, encode_varint
from bacalhau_p2p.errors import InvalidCID, InvalidContent

RAW = 0x55
"""Multicodec of a block that is content as it is."""
DAG_PB = 0x70
"""Multicodec of a block that is a protobuf node with links (UnixFS)."""
SHA2_256 = 0x12
"""Multihash code of the only hash function that is fetched, served and stored."""

_DIGEST = 32
_MAX_BINARY = 160
_MAX_TEXT = 320
_V1_HEADS = {codec: bytes((1, codec, SHA2_256, _DIGEST)) for codec in (RAW, DAG_PB)}
_FETCHABLE = frozenset(_V1_HEADS.values())
_V0_HEAD = bytes((SHA2_256, _DIGEST))


@dataclass(frozen=True, slots=True, order=True)
class CID:
    """A CID in binary form (`bytes(cid)`); two are equal when their bytes are equal.

    Any well-formed CID is accepted, so that errors can name it; `fetchable` tells whether this node
    supports its codec and hash function.
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

        Raises InvalidCID, also for an `ipfs://` prefix or a path after the CID.
        """
        if not text:
            raise InvalidCID("a CID is missing")
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
        """The CIDv1 of a block with sha2-256."""
        head = _V1_HEADS.get(codec) or b"\x01" + encode_varint(codec) + _V0_HEAD
        return cls(head + hashlib.sha256(block).digest())

    @classmethod
    def read(cls, data: bytes, offset: int = 0) -> tuple[Self, int]:
        """The CID at `offset`, and the offset after it. Raises InvalidCID."""
        if data[offset : offset + 2] == _V0_HEAD:
            end = offset + 34
        elif data[offset : offset + 4] in _FETCHABLE:
            end = offset + 36
        else:
            end = _end_of_v1(data, offset)
        if end > len(data):
            raise InvalidCID("the CID is truncated")
        return cls(data[offset:end]), end

    @property
    def version(self) -> int:
        return 0 if self.binary[:2] == _V0_HEAD else 1

    @property
    def codec(self) -> int:
        """The multicodec of the block: `RAW`, `DAG_PB`, or an unsupported one."""
        codec = self.binary[1]
        if self.binary[0] == 1 and codec < 0x80:
            return codec
        return DAG_PB if self.version == 0 else decode_varint(self.binary, 1)[0]

    @property
    def hash_code(self) -> int:
        """The multihash code: `SHA2_256`, or an unsupported one."""
        return SHA2_256 if self.version == 0 else _split_v1(self.binary)[1]

    @property
    def digest(self) -> bytes:
        """The hash of the block, without its multihash prefix."""
        if self.fetchable:
            return self.binary[-_DIGEST:]
        return _split_v1(self.binary)[2]

    @property
    def fetchable(self) -> bool:
        """Whether this is a raw or dag-pb block with sha2-256: all that UnixFS needs."""
        return self.binary[:4] in _FETCHABLE or self.binary[:2] == _V0_HEAD

    @property
    def v1(self) -> CID:
        """The same content as a CIDv1, so that both versions of a CID compare equal."""
        return CID(_V1_HEADS[DAG_PB] + self.digest) if self.binary[:2] == _V0_HEAD else self

    def require_fetchable(self) -> None:
        """Raises InvalidContent, which names the unsupported codec or hash function."""
        if self.fetchable:
            return
        if self.hash_code != SHA2_256:
            raise InvalidContent(f"{self} has hash function 0x{self.hash_code:x}; only sha2-256 is supported")
        raise InvalidContent(f"{self} has codec 0x{self.codec:x}; only raw and dag-pb are supported")

    def verify(self, block: bytes | bytearray | memoryview) -> bool:
        """Whether `block` matches this CID; always False unless it is fetchable."""
        return self.fetchable and hashlib.sha256(block).digest() == self.binary[-_DIGEST:]

    def require_match(self, block: bytes | bytearray | memoryview) -> None:
        """Raises InvalidContent unless `block` matches this CID."""
        if not self.verify(block):
            self.require_fetchable()
            raise InvalidContent(f"block {self} does not match its hash")

    def __hash__(self) -> int:
        return hash(self.binary)  # bytes cache their hash, and CIDs are looked up all the time

    def __bytes__(self) -> bytes:
        return self.binary

    def __str__(self) -> str:
        if self.version == 0:
            return base58.b58encode(self.binary).decode("ascii")
        return _encode_base32(self.binary)

    def __repr__(self) -> str:
        return f"CID({str(self)!r})"


def _end_of_v1(data: bytes, offset: int) -> int:
    """The offset after the CIDv1 at `offset`."""
    try:
        version, at = decode_varint(data, offset)
        if version != 1:
            raise InvalidCID(f"CID version {version} is not supported")
        _, at = decode_varint(data, at)
        _, at = decode_varint(data, at)
        length, at = decode_varint(data, at)
    except (IndexError, ValueError):
        raise InvalidCID("the CID is truncated or malformed") from None
    end = at + length
    if end - offset > _MAX_BINARY:
        raise InvalidCID(f"its digest has {length} bytes, which is too long")
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
        raise InvalidCID(f"its sha2-256 digest has {length} bytes, not 32")
    return codec, hash_code, binary[at:]


@lru_cache(maxsize=4096)
def _decode_text(text: str) -> bytes:
    """The binary form of a multibase text. Raises ValueError."""
    if len(text) == 46 and text.startswith("Qm"):
        return base58.b58decode(text)
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
        return base58.b58decode(digits)
    if base == "k":
        return _decode_base36(digits)
    if base == "f":
        return bytes.fromhex(digits)
    raise ValueError("unknown multibase")


def _decode_base36(digits: str) -> bytes:
    if digits != digits.lower() or digits.startswith("0"):  # a CID has no leading zero
        raise ValueError("not the canonical text")
    number = int(digits, 36)
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


@lru_cache(maxsize=4096)
def _encode_base32(binary: bytes) -> str:
    return "b" + b32encode(binary).decode("ascii").lower().rstrip("=")


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
