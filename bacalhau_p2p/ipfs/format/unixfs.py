"""What a block means, by the codec of its CID: a file, a folder, a shard of one, a symlink.

Nothing but the codec decides: a raw block whose bytes happen to be a dag-pb node is a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bacalhau_p2p.errors import ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_pb import NodeType, PBNode, decode_block
from bacalhau_p2p.ipfs.format.hamt import shard_links
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits


class Part(NamedTuple):
    """A link of a file: the block, and the bytes of content that it must expand to."""

    cid: CID
    size: int


class Entry(NamedTuple):
    """A link of a folder."""

    name: str
    cid: CID


@dataclass(frozen=True, slots=True)
class File:
    """A file or a part of one: its content is `data` and then that of its parts."""

    size: int
    data: bytes
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that fits into one block."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """One block of a larger folder: slot, name and CID; an empty name is a further shard."""

    fanout: int
    links: tuple[tuple[int, bytes, CID], ...]


@dataclass(frozen=True, slots=True)
class Symlink:
    target: str


Node = File | Folder | Shard | Symlink


def decode(cid: CID, block: bytes, limits: Limits = DEFAULT_LIMITS) -> Node:
    """What a block is, by its CID's codec; its hash has been checked already.

    Raises InvalidContent for whatever contradicts itself, ContentTooLarge for a file above the limit.
    """
    cid.require_fetchable()
    if cid.codec == RAW:
        return File(len(block), block)
    node = decode_block(cid, block)
    if node.type in (NodeType.FILE, NodeType.RAW):
        return _file(cid, node, limits)
    if node.type is NodeType.DIRECTORY:
        return _folder(cid, node, limits)
    if node.type is NodeType.HAMT_SHARD:
        return _shard(cid, node, limits)
    if node.type is NodeType.SYMLINK:
        return _symlink(cid, node, limits)
    raise InvalidContent(f"block {cid} is UnixFS metadata, which is neither a file nor a folder")


def _file(cid: CID, node: PBNode, limits: Limits) -> File:
    sizes = node.blocksizes
    if len(node.links) != len(sizes):
        raise InvalidContent(f"file {cid} has {len(node.links)} links but {len(sizes)} block sizes")
    if not all(sizes):
        raise InvalidContent(f"file {cid} has a part of no bytes")
    size = len(node.data) + sum(sizes)
    if node.filesize is not None and node.filesize != size:
        raise InvalidContent(f"file {cid} claims {node.filesize} bytes, but its parts add up to {size}")
    if size > limits.bytes:
        raise ContentTooLarge(f"file {cid} has {size} bytes; the limit is {limits.bytes}")
    parts = tuple(Part(link.cid, part) for link, part in zip(node.links, sizes, strict=True))
    return File(size, node.data, parts)


def _folder(cid: CID, node: PBNode, limits: Limits) -> Folder:
    entries = tuple(Entry(check_name(link.name, limits), link.cid) for link in node.links)
    if len({entry.name for entry in entries}) != len(entries):
        raise InvalidContent(f"folder {cid} has two entries of the same name")
    return Folder(entries)


def _shard(cid: CID, node: PBNode, limits: Limits) -> Shard:
    links = shard_links(cid, node)
    for _, name, _ in links:
        if name:
            check_name(name, limits)
    return Shard(node.fanout, tuple(links))


def _symlink(cid: CID, node: PBNode, limits: Limits) -> Symlink:
    if node.links or not node.data or len(node.data) > limits.path or b"\0" in node.data:
        raise InvalidContent(f"symlink {cid} has no usable target")
    try:
        return Symlink(node.data.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidContent(f"symlink {cid} has a target that is not UTF-8") from None


def check_name(name: bytes, limits: Limits = DEFAULT_LIMITS) -> str:
    """The name of an entry as text. Raises InvalidContent unless it names something inside its folder."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise InvalidContent(f"an entry has the forbidden name {name[: limits.name]!r}")
    if len(name) > limits.name:
        raise InvalidContent(f"an entry has a name of {len(name)} bytes; the limit is {limits.name}")
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidContent(f"an entry has the name {name!r}, which is not UTF-8") from None
