"""CIDs as text and as bytes, for every codec and hash function. The type for CIDs is in `ipfs/format`."""

from __future__ import annotations

from base64 import b32decode, b32encode
from functools import lru_cache

import base58

from bacalhau_p2p.encoding.varint import decode_varint
from bacalhau_p2p.errors import InvalidCID

SHA2_256 = 0x12
"""Multihash code of the only hash function that is fetched, served and stored."""
SHA2_256_LENGTH = 32
"""Bytes of its digest."""
V0_HEAD = bytes((SHA2_256, SHA2_256_LENGTH))
"""The first bytes of a CIDv0, which is a multihash and nothing else."""

_V0_LENGTH = len(V0_HEAD) + SHA2_256_LENGTH
_MAX_BINARY = 160
"""Bytes of a CID."""
_MAX_TEXT = 320
"""Characters of a CID."""


def binary_of_text(text: str) -> bytes:
    """The bytes of a CID from its text: base32 (`bafy...`), base58 (`Qm...`, `z...`), base36 (`k...`) or hex
    (`f...`).

    Raises InvalidCID, also for an `ipfs://` prefix or a path after the CID: see `split_content_path`.
    """
    if not text:
        raise InvalidCID("a CID is missing")
    if len(text) > _MAX_TEXT or not text.isascii() or not text.isalnum():
        raise InvalidCID(f"{_shorten(text)} is not a CID")
    try:
        return _decode_text(text)
    except InvalidCID as error:
        raise InvalidCID(f"{_shorten(text)} is not a CID: {error}") from None
    except ValueError:
        raise InvalidCID(f"{_shorten(text)} is not a CID") from None


def text_of_binary(binary: bytes) -> str:
    """The usual text of a CID: base58 for version 0, base32 for version 1."""
    if binary[:2] == V0_HEAD:
        return base58.b58encode(binary).decode("ascii")
    return _encode_base32(binary)


def split_content_path(text: str) -> tuple[str, tuple[str, ...]]:
    """The text of the CID and the names in `CID/path`, which may start with `ipfs://` or `/ipfs/`.

    Empty names are ignored. The CID is not checked. Raises InvalidCID for a name that no folder can have.
    """
    head, *rest = text.removeprefix("ipfs://").removeprefix("/ipfs/").split("/")
    names = tuple(name for name in rest if name)
    if any(name in (".", "..") or "\0" in name for name in names):
        raise InvalidCID(f"invalid path in {_shorten(text)}: names cannot be '.' or '..' or contain NUL")
    return head, names


def end_of_v1(data: bytes, offset: int) -> int:
    """The offset after the CIDv1 at `offset`, which may be beyond the end of `data`. Raises InvalidCID."""
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


def split_v1(binary: bytes) -> tuple[int, int, bytes]:
    """Codec, hash code and digest of a CIDv1. Raises InvalidCID unless it fills `binary` exactly."""
    end = end_of_v1(binary, 0)
    if end != len(binary):
        raise InvalidCID("its length is wrong")
    codec, at = decode_varint(binary, 1)
    hash_code, at = decode_varint(binary, at)
    length, at = decode_varint(binary, at)
    if hash_code == SHA2_256 and length != SHA2_256_LENGTH:
        raise InvalidCID(f"its sha2-256 digest has {length} bytes, not 32")
    return codec, hash_code, binary[at:]


@lru_cache(maxsize=4096)
def _decode_text(text: str) -> bytes:
    """Raises InvalidCID, ValueError."""
    binary = _decode_multibase(text)
    if len(binary) != _V0_LENGTH or binary[:2] != V0_HEAD:
        split_v1(binary)
    return binary


def _decode_multibase(text: str) -> bytes:
    """Raises ValueError."""
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
