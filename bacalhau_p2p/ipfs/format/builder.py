"""The blocks of files, folders and symlinks, as kubo makes them for the same profile."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass

from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_pb import (
    PBLink,
    encode_block,
    encode_directory,
    encode_file,
    encode_symlink,
)
from bacalhau_p2p.ipfs.format.hamt import shard_blocks
from bacalhau_p2p.ipfs.format.profiles import DEFAULT_PROFILE, Profile
from bacalhau_p2p.ipfs.format.subtree import Blocks, Subtree, node_block


@dataclass(frozen=True, slots=True)
class _Part:
    """A block of a file: its bytes of content, and the bytes of its blocks."""

    cid: CID
    size: int
    tsize: int


_Parts = Generator[tuple[CID, bytes], None, _Part]


def file_blocks(chunks: Iterable[bytes], profile: Profile = DEFAULT_PROFILE, *, mode: int = 0) -> Blocks:
    """The blocks of a file as a balanced tree: chunks of `profile.chunk` bytes (the last may be shorter),
    then the blocks that link to them, the root last. A `mode` is in the root, which then is no chunk."""
    levels: list[list[_Part]] = [[]]
    for chunk in chunks:
        cid = CID.of(RAW, chunk)
        yield cid, chunk
        yield from _append(levels, 0, _Part(cid, len(chunk), len(chunk)), profile.links)
    if not levels[0] and mode:
        return (yield from node_block(encode_block((), encode_file(0, (), mode)), 0))
    if not levels[0]:
        empty = CID.of(RAW, b"")
        yield empty, b""
        return Subtree(empty, 0)
    level = 0
    while level + 1 < len(levels) or len(levels[level]) > 1:
        parent = yield from _parent(levels[level], mode if level + 1 == len(levels) else 0)
        levels[level] = []
        yield from _append(levels, level + 1, parent, profile.links)
        level += 1
    root = levels[level][0]
    if mode and level == 0:
        root = yield from _parent(levels[level], mode)
    return Subtree(root.cid, root.tsize)


def folder_blocks(children: Mapping[bytes, Subtree], profile: Profile = DEFAULT_PROFILE) -> Blocks:
    """The block of a folder, or the blocks of a sharded one, the root last."""
    width = sum(len(name) + len(child.cid.binary) for name, child in children.items())
    if width > profile.shard_above:  # the block would be larger still
        return (yield from shard_blocks(children))
    links = [PBLink(child.cid, name, child.tsize) for name, child in sorted(children.items())]
    block = encode_block(links, encode_directory())
    if profile.shard_by == "block" and len(block) > profile.shard_above:
        return (yield from shard_blocks(children))
    return (yield from node_block(block, sum(child.tsize for child in children.values())))


def symlink_blocks(target: bytes) -> Blocks:
    """The one block of a symlink."""
    return node_block(encode_block((), encode_symlink(target)))


def _append(
    levels: list[list[_Part]], level: int, part: _Part, max_links: int
) -> Generator[tuple[CID, bytes], None, None]:
    """Put a part on its level. A full level gets a parent only when another part follows."""
    if level == len(levels):
        levels.append([])
    if len(levels[level]) == max_links:
        full = levels[level]
        levels[level] = []
        parent = yield from _parent(full)
        yield from _append(levels, level + 1, parent, max_links)
    levels[level].append(part)


def _parent(parts: list[_Part], mode: int = 0) -> _Parts:
    size = sum(part.size for part in parts)
    links = [PBLink(part.cid, b"", part.tsize) for part in parts]
    block = encode_block(links, encode_file(size, (part.size for part in parts), mode))
    root = yield from node_block(block, sum(part.tsize for part in parts))
    return _Part(root.cid, size, root.tsize)
