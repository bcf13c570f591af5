"""What a whole DAG adds up to, whether it is complete, and whether it is within the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.format.block_source import BlockSource, BulkBlockSource
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.traversal import folder_entries
from bacalhau_p2p.ipfs.format.unixfs import (
    Entry,
    File,
    Folder,
    Node,
    Shard,
    Symlink,
    check_part_size,
    decode,
    require_part,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DagStat:
    """The bytes of all files and the number of entries as written out (repeated ones each time, the root
    not counted), and the number of distinct blocks.

    While blocks are `missing`, these are the sums of what is there.
    """

    bytes: int
    entries: int
    blocks: int
    missing: tuple[CID, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.missing


def dag_stat(
    root: CID, source: BlockSource, limits: Limits = DEFAULT_LIMITS, *, missing_limit: int = 1000
) -> DagStat:
    """Check a whole DAG against `limits` and for consistency, reading each block with links once.

    Stops early at `missing_limit` missing blocks, which are named depth first. Takes time in proportion
    to the number of distinct blocks, never to what they expand to.
    Raises InvalidContent, ContentTooLarge.
    """
    return _DagStat(source, limits, missing_limit).run(root.v1)


def require_complete(
    root: CID, source: BlockSource, limits: Limits = DEFAULT_LIMITS, stat: DagStat | None = None
) -> DagStat:
    """The `stat` of a DAG, computed unless it is given. Raises ContentNotFound when blocks are missing,
    InvalidContent, ContentTooLarge."""
    stat = stat or dag_stat(root, source, limits, missing_limit=1)
    if not stat.complete:
        raise ContentNotFound(f"{root} is incomplete in the store")
    return stat


class _Sum(NamedTuple):
    """What a subtree adds up to; `height` is folders below it, `path` the longest path in bytes."""

    bytes: int
    entries: int
    height: int
    path: int


_NOTHING = _Sum(0, 0, 0, 0)


class _TooManyMissing(Exception):
    """As many blocks are missing as the caller wants to know."""


_SIZES_AT_ONCE = 500
"""Entries whose sizes are read in one call."""


class _DagStat:
    def __init__(self, source: BlockSource, limits: Limits, missing_limit: int) -> None:
        self._source = source
        self._limits = limits
        self._missing_limit = missing_limit
        self._bulk = source if isinstance(source, BulkBlockSource) else None
        self._sizes: Mapping[CID, int] = {}
        self._sums: dict[CID, _Sum] = {}
        self._parts: dict[CID, tuple[int, int]] = {}
        self._missing: dict[CID, None] = {}
        self._blocks: set[CID] = set()

    def run(self, root: CID) -> DagStat:
        try:
            total = self._entry(root, 0, 0)
        except _TooManyMissing:
            total = _NOTHING
        return DagStat(
            bytes=total.bytes,
            entries=total.entries,
            blocks=len(self._blocks),
            missing=tuple(self._missing),
        )

    def _entry(self, cid: CID, depth: int, path: int) -> _Sum:
        cid = cid.v1
        known = self._sums.get(cid)
        if known is None:
            known = self._sum(cid, depth, path)
            self._sums[cid] = known
        self._limits.check_folder_depth(depth + known.height)
        self._limits.check_path(path + known.path)
        return known

    def _sum(self, cid: CID, depth: int, path: int) -> _Sum:
        cid.require_fetchable()
        if cid.codec == RAW:
            return _Sum(self._raw(cid, None), 0, 0, 0)
        node = self._load(cid)
        if node is None or isinstance(node, Symlink):
            return _NOTHING
        if isinstance(node, File):
            self._add_parts(cid, node, 0)
            return _Sum(node.size, 0, 0, 0)
        self._limits.check_folder_depth(depth + 1)
        return self._folder(cid, node, depth, path)

    def _folder(self, cid: CID, node: Folder | Shard, depth: int, path: int) -> _Sum:
        size = entries = height = longest = 0
        for name, link in self._with_sizes(folder_entries(cid, node, self._load)):
            width = len(name.encode()) + (1 if path else 0)
            below = self._entry(link, depth + 1, path + width)
            size += below.bytes
            entries += 1 + below.entries
            height = max(height, below.height)
            longest = max(longest, below.path + len(name.encode()) + 1)
            self._limits.check_bytes(size)
            self._limits.check_entries(entries)
        return _Sum(size, entries, height + 1, longest)

    def _with_sizes(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """The entries, with the sizes of many of them read at once."""
        if self._bulk is None:
            yield from entries
            return
        while some := list(islice(entries, _SIZES_AT_ONCE)):
            sizes = self._bulk.sizes([cid for _, cid in some if cid.codec == RAW])
            for entry in some:
                self._sizes = sizes  # set for each entry: a folder before it has replaced them
                yield entry

    def _add_parts(self, cid: CID, node: File, depth: int) -> int:
        """Check the parts of a file `depth` blocks below its root; returns the levels of blocks below it."""
        height = 0
        for link, size in node.parts:
            part = link.v1
            found, below = self._parts.get(part) or self._part(part, size, depth + 1)
            height = max(height, below + 1)
            self._limits.check_file_depth(depth + height)
            check_part_size(link, found, size)
        self._parts[cid] = (node.size, height)
        return height

    def _part(self, cid: CID, declared: int, depth: int) -> tuple[int, int]:
        """What a part of a file expands to (`declared` while it is missing), and the levels below it."""
        self._limits.check_file_depth(depth)
        cid.require_fetchable()
        if cid.codec == RAW:
            self._parts[cid] = (self._raw(cid, declared), 0)
            return self._parts[cid]
        node = self._load(cid)
        if node is None:
            return declared, 0
        file = require_part(cid, node, declared)
        return file.size, self._add_parts(cid, file, depth)

    def _raw(self, cid: CID, declared: int | None) -> int:
        """The bytes of a raw block. One of another size than declared is read, because a damaged copy
        counts as missing and not as wrong."""
        if declared is None and (known := self._sizes.get(cid)) is not None:
            self._count(cid)
            return known
        size = self._source.size(cid)
        if size is None or (size != declared and self._source.get(cid) is None):
            self._miss(cid)
            return declared or 0
        self._count(cid)
        return size

    def _load(self, cid: CID) -> Node | None:
        cid = cid.v1
        cid.require_fetchable()
        block = self._source.get(cid)
        if block is None:
            self._miss(cid)
            return None
        self._count(cid)
        return decode(cid, block, self._limits)

    def _count(self, cid: CID) -> None:
        self._blocks.add(cid)
        self._limits.check_blocks(len(self._blocks))

    def _miss(self, cid: CID) -> None:
        self._missing[cid] = None
        if len(self._missing) >= self._missing_limit:
            raise _TooManyMissing
