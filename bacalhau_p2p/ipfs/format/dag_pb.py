"""dag-pb blocks and the UnixFS message inside them: bytes to values and back.

Encoding produces the bytes that kubo produces. Decoding is strict, because blocks come from peers.
Formats: the DAG-PB and UnixFS specifications of IPLD and IPFS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from bacalhau_p2p.encoding.protobuf import bytes_field, read_fields, varint_field
from bacalhau_p2p.encoding.varint import decode_varint
from bacalhau_p2p.errors import InvalidCID, InvalidContent
from bacalhau_p2p.ipfs.format.cid import CID

HAMT_HASH = 0x22
"""Multihash code of murmur3-x64-64, the only hash function of sharded folders."""


class NodeType(IntEnum):
    """Kinds of UnixFS nodes."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    HAMT_SHARD = 5


@dataclass(frozen=True, slots=True)
class PBLink:
    """A link of a dag-pb block. `tsize` declares the bytes of all blocks below it and is not verified."""

    cid: CID
    name: bytes
    tsize: int


@dataclass(frozen=True, slots=True)
class PBNode:
    """A decoded dag-pb block with its UnixFS message. `filesize` is None when it is absent."""

    type: NodeType
    links: Sequence[PBLink]
    data: bytes = b""
    filesize: int | None = None
    blocksizes: Sequence[int] = ()
    hash_type: int = 0
    fanout: int = 0
    mode: int = 0
    """Permissions as in UNIX; 0 where none are said."""


# --- encoding -----------------------------------------------------------------------------


def encode_block(links: Iterable[PBLink], unixfs: bytes) -> bytes:
    """A dag-pb block: the links, then the UnixFS message."""
    parts = []
    for link in links:
        fields = (bytes_field(1, link.cid.binary), bytes_field(2, link.name), varint_field(3, link.tsize))
        parts.append(bytes_field(2, b"".join(fields)))
    parts.append(bytes_field(1, unixfs))
    return b"".join(parts)


def encode_file(filesize: int, blocksizes: Iterable[int], mode: int = 0) -> bytes:
    """The UnixFS message of a file whose content is in its linked blocks, with its permissions unless 0."""
    sizes = b"".join(varint_field(4, size) for size in blocksizes)
    permissions = varint_field(7, mode) if mode else b""
    return varint_field(1, NodeType.FILE) + varint_field(3, filesize) + sizes + permissions


def encode_directory() -> bytes:
    """The UnixFS message of a folder that fits into one block."""
    return varint_field(1, NodeType.DIRECTORY)


def encode_symlink(target: bytes) -> bytes:
    """The UnixFS message of a symlink."""
    return varint_field(1, NodeType.SYMLINK) + bytes_field(2, target)


def encode_shard(bitfield: int, fanout: int) -> bytes:
    """The UnixFS message of one shard of a folder; bit n of `bitfield` is set when slot n is in use."""
    bits = bitfield.to_bytes((bitfield.bit_length() + 7) // 8, "big")
    hash_and_fanout = varint_field(5, HAMT_HASH) + varint_field(6, fanout)
    return varint_field(1, NodeType.HAMT_SHARD) + bytes_field(2, bits) + hash_and_fanout


# --- decoding -----------------------------------------------------------------------------


def decode_block(cid: CID, block: bytes) -> PBNode:
    """The node in a dag-pb block; `cid` is for error messages only. Raises InvalidContent."""
    try:
        links, unixfs = _decode_pb(block)
        if unixfs is None:
            raise ValueError("it has no UnixFS message")
        return _decode_unixfs(links, unixfs)
    except (IndexError, ValueError, InvalidCID) as error:
        reason = "it is truncated" if isinstance(error, IndexError) else str(error)
        raise InvalidContent(f"block {cid} is not a UnixFS node: {reason}") from None


def _decode_pb(block: bytes) -> tuple[list[PBLink], bytes | None]:
    links: list[PBLink] = []
    unixfs: bytes | None = None
    links_closed = False
    for number, value in read_fields(block):
        if not isinstance(value, bytes) or number not in (1, 2):
            raise ValueError(f"field {number} is not part of dag-pb")
        if number == 2:
            if links_closed:
                raise ValueError("it has links before and after its data")
            links.append(_decode_link(value))
        elif unixfs is not None:
            raise ValueError("it has two data fields")
        else:
            unixfs = value
            links_closed = bool(links)
    return links, unixfs


_CID_FIELD = bytes((0x0A, 36))
"""Key and length of the usual CID field of a link; below, the keys of the two fields after it."""
_NAME_FIELD, _SIZE_FIELD = 0x12, 0x18


def _decode_link(data: bytes) -> PBLink:
    # Nearly all links have this form, and a folder has many: reading them field by field takes longer.
    if data[:2] == _CID_FIELD and len(data) > 40 and data[38] == _NAME_FIELD:
        end = 40 + data[39]
        if data[39] < 0x80 and len(data) > end and data[end] == _SIZE_FIELD:
            tsize, after = decode_varint(data, end + 1)
            if after == len(data):
                return PBLink(CID(data[2:38]), data[40:end], tsize)
    return _decode_unusual_link(data)


def _decode_unusual_link(data: bytes) -> PBLink:
    cid: CID | None = None
    name, tsize, last = b"", 0, 0
    for number, value in read_fields(data):
        if number <= last:
            raise ValueError("the fields of a link are out of order")
        last = number
        if number == 1 and isinstance(value, bytes):
            cid, end = CID.read(value)
            if end != len(value):
                raise ValueError("a link has bytes after its CID")
        elif number == 2 and isinstance(value, bytes):
            name = value
        elif number == 3 and isinstance(value, int):
            tsize = value
        else:
            raise ValueError(f"field {number} of a link is not part of dag-pb")
    if cid is None:
        raise ValueError("a link has no CID")
    return PBLink(cid, name, tsize)


def _decode_unixfs(links: list[PBLink], message: bytes) -> PBNode:
    numbers: dict[int, int] = {}
    data = b""
    blocksizes: list[int] = []
    for number, value in read_fields(message):
        if number == 2 and isinstance(value, bytes):
            data = value
        elif number == 4 and isinstance(value, int):
            blocksizes.append(value)
        elif number == 4 and isinstance(value, bytes):
            blocksizes.extend(_packed(value))
        elif number in (1, 3, 5, 6, 7) and isinstance(value, int):
            numbers[number] = value
        elif number < 7:  # 7 is the mode and 8 the time, which is ignored as later additions are
            raise ValueError(f"UnixFS field {number} has the wrong type")
    if 1 not in numbers:
        raise ValueError("the UnixFS type is missing")
    if numbers[1] not in NodeType.__members__.values():
        raise ValueError(f"UnixFS type {numbers[1]} is unknown")
    return PBNode(
        type=NodeType(numbers[1]),
        links=links,
        data=data,
        filesize=numbers.get(3),
        blocksizes=blocksizes,
        hash_type=numbers.get(5, 0),
        fanout=numbers.get(6, 0),
        mode=numbers.get(7, 0),
    )


def _packed(data: bytes) -> Iterator[int]:
    offset = 0
    while offset < len(data):
        number, offset = decode_varint(data, offset)
        yield number
