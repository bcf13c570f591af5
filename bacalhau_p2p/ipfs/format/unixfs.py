"""What a block means: a file, a folder, a shard of a folder, or a symlink.

Only the codec of its CID decides: a raw block whose bytes happen to be a dag-pb node is a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bacalhau_p2p.errors import InvalidContent
from bacalhau_p2p.ipfs.format.block_source import BlockSource, require_block
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_pb import NodeType, PBNode, decode_block
from bacalhau_p2p.ipfs.format.hamt import shard_links
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits

ANY_EXECUTE = 0o111
"""The bits of a mode by which a file is a program for anybody."""


class Part(NamedTuple):
    """A link of a file: the block, and the bytes of content that it declares for it."""

    cid: CID
    size: int


class Entry(NamedTuple):
    """A link of a folder."""

    name: str
    cid: CID


@dataclass(frozen=True, slots=True)
class File:
    """A file or a part of one: its content is `data`, followed by that of its parts."""

    size: int
    data: bytes
    parts: tuple[Part, ...] = ()
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that fits into one block."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """One block of a sharded folder: slot, name and CID of each link; an empty name is a further shard."""

    fanout: int
    links: tuple[tuple[int, bytes, CID], ...]


@dataclass(frozen=True, slots=True)
class Symlink:
    target: str


Node = File | Folder | Shard | Symlink


def decode(cid: CID, block: bytes, limits: Limits = DEFAULT_LIMITS) -> Node:
    """The node in a block whose hash is verified.

    Raises InvalidContent for a block that contradicts itself, ContentTooLarge for a file above the limit.
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
    raise InvalidContent(f"block {cid} is UnixFS metadata, not a file or folder")


def load_node(cid: CID, source: BlockSource, limits: Limits = DEFAULT_LIMITS) -> Node:
    """The node in a block of `source`. Raises ContentNotFound, InvalidContent, ContentTooLarge."""
    cid.require_fetchable()
    return decode(cid, require_block(cid, source), limits)


def require_part(cid: CID, node: Node, declared: int) -> File:
    """The node as a part of a file that has `declared` bytes for it. Raises InvalidContent."""
    if not isinstance(node, File):
        raise InvalidContent(f"block {cid} is not part of a file")
    check_part_size(cid, node.size, declared)
    return node


def check_part_size(cid: CID, size: int, declared: int) -> None:
    """Raises InvalidContent."""
    if size != declared:
        raise InvalidContent(f"part {cid} of a file has {size} bytes; its parent declares {declared}")


def require_shard(cid: CID, node: Node, fanout: int) -> Shard:
    """The node as a shard below another with this fan-out. Raises InvalidContent."""
    if not isinstance(node, Shard) or not node.links or node.fanout != fanout:
        raise InvalidContent(f"block {cid} is not a shard of its folder")
    return node


def _file(cid: CID, node: PBNode, limits: Limits) -> File:
    sizes = node.blocksizes
    if len(node.links) != len(sizes):
        raise InvalidContent(f"file {cid} has {len(node.links)} links but {len(sizes)} block sizes")
    if not all(sizes):
        raise InvalidContent(f"file {cid} has an empty part")
    size = len(node.data) + sum(sizes)
    if node.filesize is not None and node.filesize != size:
        raise InvalidContent(f"file {cid} declares {node.filesize} bytes, but its parts add up to {size}")
    limits.check_bytes(size, f"file {cid}")
    parts = tuple(Part(link.cid, part) for link, part in zip(node.links, sizes, strict=True))
    return File(size, node.data, parts, executable=bool(node.mode & ANY_EXECUTE))


def _folder(cid: CID, node: PBNode, limits: Limits) -> Folder:
    entries = tuple(Entry(check_name(link.name, limits), link.cid) for link in node.links)
    if len({entry.name for entry in entries}) != len(entries):
        raise InvalidContent(f"folder {cid} has two entries with the same name")
    return Folder(entries)


def _shard(cid: CID, node: PBNode, limits: Limits) -> Shard:
    links = shard_links(cid, node)
    for _, name, _ in links:
        if name:
            check_name(name, limits)
    return Shard(node.fanout, tuple(links))


def _symlink(cid: CID, node: PBNode, limits: Limits) -> Symlink:
    if node.links or not node.data or len(node.data) > limits.path or b"\0" in node.data:
        raise InvalidContent(f"symlink {cid} has no valid target")
    try:
        return Symlink(node.data.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidContent(f"symlink {cid} has a target that is not UTF-8") from None


def check_name(name: bytes, limits: Limits = DEFAULT_LIMITS) -> str:
    """The name of an entry as text. Raises InvalidContent for a name that could leave its folder."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise InvalidContent(f"invalid entry name {name[: limits.name]!r}")
    if len(name) > limits.name:
        raise InvalidContent(f"an entry name has {len(name)} bytes; the limit is {limits.name}")
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidContent(f"entry name {name!r} is not UTF-8") from None
