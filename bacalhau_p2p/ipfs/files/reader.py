"""Resolves paths below a CID, and reads parts of files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bacalhau_p2p.encoding.cids import split_content_path
from bacalhau_p2p.errors import InvalidContent, PathNotFound
from bacalhau_p2p.ipfs.format.block_source import BlockSource
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.hamt import max_levels, name_hash, slot
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.unixfs import File, Folder, Node, Shard, load_node, require_part, require_shard


@dataclass(frozen=True, slots=True)
class ResolvedPath:
    """What a path below a root leads to, and the `ancestors`: the blocks that lead there, the root first."""

    cid: CID
    node: Node
    ancestors: tuple[CID, ...]


def split_path(text: str) -> tuple[CID, tuple[str, ...]]:
    """The CID and the names of `CID/path`, which may start with `ipfs://` or `/ipfs/`.

    Empty names are ignored. Raises InvalidCID.
    """
    head, names = split_content_path(text)
    return CID.parse(head), names


def resolve(
    root: CID, names: tuple[str, ...], source: BlockSource, limits: Limits = DEFAULT_LIMITS
) -> ResolvedPath:
    """What the path `names` below `root` leads to. Symlinks are not followed.

    Raises PathNotFound when a name does not exist, ContentNotFound when a block is not in `source`,
    InvalidContent.
    """
    ancestors: list[CID] = []
    cid, node = root, load_node(root, source, limits)
    for depth, name in enumerate(names):
        ancestors.append(cid)
        if isinstance(node, Folder):
            found = next((entry.cid for entry in node.entries if entry.name == name), None)
        elif isinstance(node, Shard):
            found = _find(node, name.encode(), source, limits, ancestors)
        else:
            found = None
        if found is None:
            raise PathNotFound(f"path {'/'.join(names[: depth + 1])!r} not found in {root}")
        cid, node = found, load_node(found, source, limits)
    return ResolvedPath(cid, node, tuple(ancestors))


def _find(node: Shard, name: bytes, source: BlockSource, limits: Limits, ancestors: list[CID]) -> CID | None:
    """The entry of a sharded folder; only the shards that the hash of its name selects are read."""
    hashed = name_hash(name)
    for level in range(max_levels(node.fanout)):
        number = slot(hashed, level, node.fanout)
        link = next((link for link in node.links if link[0] == number), None)
        if link is None or link[1] == name:
            return None if link is None else link[2]
        if link[1]:
            return None
        node = require_shard(link[2], load_node(link[2], source, limits), node.fanout)
        ancestors.append(link[2])
    return None


def read_file(
    cid: CID, source: BlockSource, start: int = 0, end: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> Iterator[bytes]:
    """The bytes from `start` up to `end` of a file, one piece a block; no other blocks are read.

    Raises InvalidContent unless `cid` is a file, ContentNotFound when a block is not in `source`.
    """
    node = load_node(cid, source, limits)
    if not isinstance(node, File):
        raise InvalidContent(f"{cid} is not a file")
    return _pieces(node, max(start, 0), node.size if end is None else min(end, node.size), source, limits, 0)


def _pieces(
    node: File, start: int, end: int, source: BlockSource, limits: Limits, depth: int
) -> Iterator[bytes]:
    limits.check_file_depth(depth)
    if piece := node.data[start:end]:
        yield piece
    at = len(node.data)
    for part in node.parts:
        if at >= end:
            return
        if at + part.size > start:
            below = require_part(part.cid, load_node(part.cid, source, limits), part.size)
            yield from _pieces(below, max(start - at, 0), end - at, source, limits, depth + 1)
        at += part.size


def entity_blocks(cid: CID, source: BlockSource, limits: Limits = DEFAULT_LIMITS) -> Iterator[CID]:
    """The blocks of one file, or of one folder without its entries, each once: an `entity` of IPFS gateways.

    Raises ContentNotFound, InvalidContent.
    """
    pending, seen = [cid.v1], {cid.v1}
    while pending:
        cid = pending.pop()
        yield cid
        node = load_node(cid, source, limits)
        below: list[CID] = []
        if isinstance(node, File):
            below = [part.cid.v1 for part in node.parts]
        elif isinstance(node, Shard):
            below = [link.v1 for _, name, link in node.links if not name]
        fresh = [link for link in dict.fromkeys(below) if link not in seen]
        seen.update(fresh)
        pending += reversed(fresh)
