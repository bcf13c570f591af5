"""What a whole DAG adds up to, whether it is all there, and whether it keeps to the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from bacalhau_p2p.errors import ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.format.block_source import BlockSource, Bulk
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.traversal import folder_entries
from bacalhau_p2p.ipfs.format.unixfs import Entry, File, Folder, Node, Shard, Symlink, decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a DAG adds up to: bytes of its files and number of its entries as written out (repeated
    ones each time, the root not counted), and its distinct blocks.

    With `missing` not empty the DAG is not complete and the sums are of what is there.
    """

    bytes: int
    entries: int
    blocks: int
    missing: tuple[CID, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.missing


def survey(
    root: CID, source: BlockSource, limits: Limits = DEFAULT_LIMITS, *, missing_limit: int = 1000
) -> Survey:
    """Check a whole DAG against `limits` and itself, reading each block with links once.

    Stops early once `missing_limit` missing blocks are known (first come, first named: depth first).
    Time grows with the number of distinct blocks, never with what they expand to.
    Raises InvalidContent, ContentTooLarge.
    """
    return _Surveyor(source, limits, missing_limit).run(root.v1)


class _Sum(NamedTuple):
    """What a subtree adds up to; `height` is folders below it, `path` the longest path in bytes."""

    bytes: int
    entries: int
    height: int
    path: int


_NOTHING = _Sum(0, 0, 0, 0)


class _Enough(Exception):
    """So many blocks are missing that looking for more is useless."""


_TOGETHER = 500
"""Entries whose sizes are asked for at one time."""


class _Surveyor:
    def __init__(self, source: BlockSource, limits: Limits, missing_limit: int) -> None:
        self._source = source
        self._limits = limits
        self._missing_limit = missing_limit
        self._bulk = source if isinstance(source, Bulk) else None
        self._sizes: Mapping[CID, int] = {}
        self._sums: dict[CID, _Sum] = {}
        self._parts: dict[CID, tuple[int, int]] = {}
        self._missing: dict[CID, None] = {}
        self._blocks: set[CID] = set()

    def run(self, root: CID) -> Survey:
        try:
            total = self._entry(root, 0, 0)
        except _Enough:
            total = _NOTHING
        return Survey(
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
        if depth + known.height > self._limits.folder_depth:
            raise InvalidContent(f"folders are nested more than {self._limits.folder_depth} deep")
        if path + known.path > self._limits.path:
            raise InvalidContent(f"a path is longer than {self._limits.path} bytes")
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
        if depth >= self._limits.folder_depth:
            raise InvalidContent(f"folders are nested more than {self._limits.folder_depth} deep")
        return self._folder(cid, node, depth, path)

    def _folder(self, cid: CID, node: Folder | Shard, depth: int, path: int) -> _Sum:
        size = entries = height = longest = 0
        for name, link in self._sized(folder_entries(cid, node, self._load)):
            width = len(name.encode()) + (1 if path else 0)
            below = self._entry(link, depth + 1, path + width)
            size += below.bytes
            entries += 1 + below.entries
            height = max(height, below.height)
            longest = max(longest, below.path + len(name.encode()) + 1)
            if size > self._limits.bytes:
                raise ContentTooLarge(f"the content expands to more than {self._limits.bytes} bytes")
            if entries > self._limits.entries:
                raise ContentTooLarge(f"the content has more than {self._limits.entries} entries")
        return _Sum(size, entries, height + 1, longest)

    def _sized(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """The entries, with the sizes of many at hand."""
        if self._bulk is None:
            yield from entries
            return
        while some := list(islice(entries, _TOGETHER)):
            sizes = self._bulk.sizes([cid for _, cid in some if cid.codec == RAW])
            for entry in some:
                self._sizes = sizes  # a folder in between had its own
                yield entry

    def _add_parts(self, cid: CID, node: File, depth: int) -> int:
        """Check the parts of a file `depth` blocks below its root; the levels of blocks below it."""
        height = 0
        for link, size in node.parts:
            part = link.v1
            found, below = self._parts.get(part) or self._part(part, size, depth + 1)
            height = max(height, below + 1)
            if depth + height > self._limits.file_depth:
                raise InvalidContent(f"a file is nested more than {self._limits.file_depth} blocks deep")
            if found != size:
                raise InvalidContent(f"part {link} of a file has {found} bytes, but {size} were promised")
        self._parts[cid] = (node.size, height)
        return height

    def _part(self, cid: CID, size: int, depth: int) -> tuple[int, int]:
        """What a part of a file expands to (`size` while it is missing), and the levels below it."""
        if depth > self._limits.file_depth:
            raise InvalidContent(f"a file is nested more than {self._limits.file_depth} blocks deep")
        cid.require_fetchable()
        if cid.codec == RAW:
            self._parts[cid] = (self._raw(cid, size), 0)
            return self._parts[cid]
        node = self._load(cid)
        if node is None:
            return size, 0
        if not isinstance(node, File):
            raise InvalidContent(f"block {cid} is not a part of a file")
        return node.size, self._add_parts(cid, node, depth)

    def _raw(self, cid: CID, promised: int | None) -> int:
        """The bytes of a raw block. One that is not as long as promised is read, lest a damaged copy
        be taken for a lie."""
        if promised is None and (known := self._sizes.get(cid)) is not None:
            self._count(cid)
            return known
        size = self._source.size(cid)
        if size is None or (size != promised and self._source.get(cid) is None):
            self._miss(cid)
            return promised or 0
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
        if len(self._blocks) > self._limits.blocks:
            raise ContentTooLarge(f"the content has more than {self._limits.blocks} blocks")

    def _miss(self, cid: CID) -> None:
        self._missing[cid] = None
        if len(self._missing) >= self._missing_limit:
            raise _Enough
