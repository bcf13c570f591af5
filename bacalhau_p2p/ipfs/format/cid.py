"""Content identifiers (CIDs): the name of a block is derived from its bytes.

Written here because no tested package is both correct and fast to import, and UnixFS needs few of the
multiformats.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

from bacalhau_p2p.encoding.cids import (
    SHA2_256,
    SHA2_256_LENGTH,
    V0_HEAD,
    binary_of_text,
    end_of_v1,
    split_v1,
    text_of_binary,
)
from bacalhau_p2p.encoding.varint import decode_varint, encode_varint
from bacalhau_p2p.errors import InvalidCID, InvalidContent

__all__ = ["CID", "DAG_PB", "RAW", "SHA2_256"]

RAW = 0x55
"""Multicodec of a block that is content as it is."""
DAG_PB = 0x70
"""Multicodec of a block that is a protobuf node with links (UnixFS)."""

_V1_HEADS = {codec: bytes((1, codec, SHA2_256, SHA2_256_LENGTH)) for codec in (RAW, DAG_PB)}
_FETCHABLE = frozenset(_V1_HEADS.values())


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
        if len(self.binary) == 34 and head[:2] == V0_HEAD:
            return
        split_v1(self.binary)

    @classmethod
    def parse(cls, text: str) -> Self:
        """A CID from its text: base32 (`bafy...`), base58 (`Qm...`, `z...`), base36 (`k...`) or hex (`f...`).

        Raises InvalidCID, also for an `ipfs://` prefix or a path after the CID.
        """
        return cls(binary_of_text(text))

    @classmethod
    def of(cls, codec: int, block: bytes | bytearray | memoryview) -> Self:
        """The CIDv1 of a block with sha2-256."""
        head = _V1_HEADS.get(codec) or b"\x01" + encode_varint(codec) + V0_HEAD
        return cls(head + hashlib.sha256(block).digest())

    @classmethod
    def read(cls, data: bytes, offset: int = 0) -> tuple[Self, int]:
        """The CID at `offset`, and the offset after it. Raises InvalidCID."""
        if data[offset : offset + 2] == V0_HEAD:
            end = offset + 34
        elif data[offset : offset + 4] in _FETCHABLE:
            end = offset + 36
        else:
            end = end_of_v1(data, offset)
        if end > len(data):
            raise InvalidCID("the CID is truncated")
        return cls(data[offset:end]), end

    @property
    def version(self) -> int:
        return 0 if self.binary[:2] == V0_HEAD else 1

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
        return SHA2_256 if self.version == 0 else split_v1(self.binary)[1]

    @property
    def digest(self) -> bytes:
        """The hash of the block, without its multihash prefix."""
        if self.fetchable:
            return self.binary[-SHA2_256_LENGTH:]
        return split_v1(self.binary)[2]

    @property
    def fetchable(self) -> bool:
        """Whether this is a raw or dag-pb block with sha2-256: all that UnixFS needs."""
        return self.binary[:4] in _FETCHABLE or self.binary[:2] == V0_HEAD

    @property
    def v1(self) -> CID:
        """The same content as a CIDv1, so that both versions of a CID compare equal."""
        return CID(_V1_HEADS[DAG_PB] + self.digest) if self.binary[:2] == V0_HEAD else self

    def require_fetchable(self) -> None:
        """Raises InvalidContent, which names the unsupported codec or hash function."""
        if self.fetchable:
            return
        if self.hash_code != SHA2_256:
            raise InvalidContent(f"{self} has hash function 0x{self.hash_code:x}; only sha2-256 is supported")
        raise InvalidContent(f"{self} has codec 0x{self.codec:x}; only raw and dag-pb are supported")

    def verify(self, block: bytes | bytearray | memoryview) -> bool:
        """Whether `block` matches this CID; always False unless it is fetchable."""
        return self.fetchable and hashlib.sha256(block).digest() == self.binary[-SHA2_256_LENGTH:]

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
        return text_of_binary(self.binary)

    def __repr__(self) -> str:
        return f"CID({str(self)!r})"
