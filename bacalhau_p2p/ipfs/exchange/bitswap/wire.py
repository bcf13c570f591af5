"""Messages of `/ipfs/bitswap/1.2.0`: a varint length, then a protobuf, as in the bitswap specification.

Messages from peers are decoded strictly and within bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bacalhau_p2p.encoding import framing
from bacalhau_p2p.encoding.protobuf import bytes_field, read_fields, varint_field
from bacalhau_p2p.encoding.varint import decode_varint
from bacalhau_p2p.errors import InvalidCID, RemoteProtocolError
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, SHA2_256
from bacalhau_p2p.ipfs.format.limits import MAX_BLOCK

PROTOCOL = "/ipfs/bitswap/1.2.0"

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of a message; the same limit as in kubo."""

MAX_ENTRIES = 10_000
"""Wants, blocks and presences in one message."""

_PREFIX_V0 = bytes((0, DAG_PB, SHA2_256, 32))
"""The prefix of a block that was requested by a CIDv0. No implementation understands an empty prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """One entry of a want list: asks for a block, or with `have` only whether the peer has it."""

    cid: CID
    have: bool = False
    cancel: bool = False
    send_dont_have: bool = False
    """Whether the sender wants an answer also when the block is missing."""

    def encode(self) -> bytes:
        body = bytes_field(1, self.cid.binary) + varint_field(2, 1)
        body += varint_field(3, 1) if self.cancel else b""
        body += varint_field(4, 1) if self.have else b""
        return body + (varint_field(5, 1) if self.send_dont_have else b"")


@dataclass(slots=True, kw_only=True)
class Message:
    """Wants of the sender, blocks that it sends, and which blocks it has (True) or lacks (False)."""

    wants: list[Want] = field(default_factory=list)
    blocks: list[tuple[CID, bytes]] = field(default_factory=list)
    presences: list[tuple[CID, bool]] = field(default_factory=list)

    def encode(self) -> bytes:
        """The message with its length prefix."""
        parts = []
        if self.wants:
            parts.append(bytes_field(1, b"".join(bytes_field(1, want.encode()) for want in self.wants)))
        for cid, block in self.blocks:
            parts.append(bytes_field(3, bytes_field(1, _prefix(cid)) + bytes_field(2, block)))
        for cid, has in self.presences:
            parts.append(bytes_field(4, bytes_field(1, cid.binary) + (b"" if has else varint_field(2, 1))))
        return framing.encode_frame(b"".join(parts))

    @classmethod
    def decode(cls, body: bytes) -> Message:
        """Blocks get the CID of their bytes, so they need no further check. Entries with an unsupported kind
        of CID are left out. Raises RemoteProtocolError."""
        message = cls()
        try:
            for number, value in read_fields(body):
                if number == 1 and isinstance(value, bytes):
                    message.wants += [want for want in _wants(value) if want.cid.fetchable]
                elif number == 3 and isinstance(value, bytes):
                    message.blocks += _block(value)
                elif number == 4 and isinstance(value, bytes):
                    message.presences += _presence(value)
                if len(message.wants) + len(message.blocks) + len(message.presences) > MAX_ENTRIES:
                    raise ValueError(f"more than {MAX_ENTRIES} entries")
        except (IndexError, ValueError, InvalidCID) as error:
            raise RemoteProtocolError(f"malformed bitswap message: {error}") from None
        return message


def take_message(buffer: bytearray) -> bytes | None:
    """Remove the first message from `buffer`; None while it is incomplete. Raises RemoteProtocolError."""
    return framing.take_frame(buffer, MAX_MESSAGE, "bitswap")


def _prefix(cid: CID) -> bytes:
    return _PREFIX_V0 if cid.version == 0 else cid.binary[:4]


def _wants(data: bytes) -> Iterator[Want]:
    for number, value in read_fields(data):
        if number != 1 or not isinstance(value, bytes):
            continue
        cid: CID | None = None
        flags: dict[int, int] = {}
        for inner, item in read_fields(value):
            if inner == 1 and isinstance(item, bytes):
                cid = CID(item)
            elif isinstance(item, int):
                flags[inner] = item
        if cid is None:
            raise ValueError("a want without a CID")
        yield Want(
            cid=cid,
            cancel=bool(flags.get(3)),
            have=flags.get(4) == 1,
            send_dont_have=bool(flags.get(5)),
        )


def _block(data: bytes) -> list[tuple[CID, bytes]]:
    prefix = block = b""
    for number, value in read_fields(data):
        if isinstance(value, bytes):
            if number == 1:
                prefix = value
            elif number == 2:
                block = value
    if len(block) > MAX_BLOCK:
        raise ValueError(f"a block has {len(block)} bytes; the limit is {MAX_BLOCK}")
    version, at = decode_varint(prefix)
    codec, at = decode_varint(prefix, at)
    if version > 1 or prefix[at:] != bytes((SHA2_256, 32)):
        return []
    cid = CID.of(codec, block)
    return [(cid, block)] if cid.fetchable else []


def _presence(data: bytes) -> list[tuple[CID, bool]]:
    cid, kind = None, 0
    for number, value in read_fields(data):
        if number == 1 and isinstance(value, bytes):
            cid = CID(value)
        elif number == 2 and isinstance(value, int):
            kind = value
    return [] if cid is None or not cid.fetchable else [(cid, kind == 0)]
