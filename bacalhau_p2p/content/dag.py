"""What a block means, by the codec of its CID, and what a whole DAG adds up to.

A block is interpreted by its CID's codec and nothing else: a raw block whose bytes happen to be a
dag-pb node is a file. Nothing here fetches or writes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, NoReturn, Protocol, runtime_checkable

from bacalhau_p2p.content.cid import CID, RAW
from bacalhau_p2p.content.dag_pb import NodeType, PBNode, decode_block
from bacalhau_p2p.content.hamt import MAX_SHARD_DEPTH, check_placement, max_levels, shard_links
from bacalhau_p2p.content.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.errors import ContentNotFound, ContentTooLarge, InvalidContent


class BlockSource(Protocol):
    """Where blocks are read from. What `get` gives is what the CID names, or None."""

    def get(self, cid: CID) -> bytes | None: ...

    def size(self, cid: CID) -> int | None:
        """Bytes of the block, without reading it."""
        ...


@runtime_checkable
class Bulk(Protocol):
    """A block source that is quicker asked for many small blocks together."""

    def sizes(self, cids: Sequence[CID]) -> Mapping[CID, int]:
        """Bytes of those whose size shows that they are whole; nothing is said of the others."""
        ...

    def small(self, cids: Sequence[CID]) -> Mapping[CID, bytes]:
        """Those that are there and small, as `get` gives them; nothing is said of the others."""
        ...


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


# --- walking, block by block ----------------------------------------------------------------


class Depth(NamedTuple):
    """How far below the root: folders, shards of the folder at hand, blocks of the file at hand."""

    folders: int = 0
    shards: int = 0
    parts: int = 0


ROOT = Depth()


def links_of(node: Node, depth: Depth, limits: Limits) -> list[tuple[CID, Depth]]:
    """The blocks that a node links to, in its order, and how deep each is.

    Raises InvalidContent where they lie deeper than `limits` allow.
    """
    if isinstance(node, File) and node.parts:
        below = _deeper(depth, "parts", limits)
        return [(part.cid, below) for part in node.parts]
    if isinstance(node, Folder) and node.entries:
        below = _deeper(depth, "folders", limits)
        return [(entry.cid, below) for entry in node.entries]
    if isinstance(node, Shard):
        kinds = {"folders" if name else "shards" for _, name, _ in node.links}
        depths = {kind: _deeper(depth, kind, limits) for kind in sorted(kinds)}
        return [(cid, depths["folders" if name else "shards"]) for _, name, cid in node.links]
    return []


def _deeper(depth: Depth, by: str, limits: Limits) -> Depth:
    if by == "parts":
        if depth.parts >= limits.file_depth:
            raise InvalidContent(f"a file is nested more than {limits.file_depth} blocks deep")
        return Depth(depth.folders, 0, depth.parts + 1)
    if by == "shards":
        if depth.shards >= MAX_SHARD_DEPTH:
            raise InvalidContent("a folder is sharded deeper than its hash has bits")
        return Depth(depth.folders, depth.shards + 1, 0)
    if depth.folders >= limits.folder_depth:
        raise InvalidContent(f"folders are nested more than {limits.folder_depth} deep")
    return Depth(depth.folders + 1, 0, 0)


def folder_entries(cid: CID, node: Folder | Shard, load: Callable[[CID], Node | None]) -> Iterator[Entry]:
    """The entries of a folder, small or sharded; `load` gives the node of a further shard, or None to
    leave its entries out.

    Raises InvalidContent where a shard is not one, is empty, or holds a name that belongs elsewhere.
    """
    if isinstance(node, Folder):
        yield from node.entries
        return
    pending: list[tuple[CID, Shard, tuple[int, ...]]] = [(cid, node, ())]
    depth = max_levels(node.fanout)
    while pending:
        shard_cid, shard, slots = pending.pop()
        for number, name, link in shard.links:
            if name:
                check_placement(shard_cid, name, (*slots, number), shard.fanout)
                yield Entry(name.decode("utf-8"), link)
                continue
            child = load(link)
            if child is None:
                continue
            if not isinstance(child, Shard) or not child.links or child.fanout != shard.fanout:
                raise InvalidContent(f"block {link} is not a shard of the folder {cid}")
            if len(slots) + 2 > depth:
                raise InvalidContent(f"folder {cid} is sharded deeper than its hash has bits")
            pending.append((link, child, (*slots, number)))


class Walk:
    """Depth first through a DAG, block by block, as blocks come from somewhere else.

    `expected` is the next block, None when all have been taken; each block is asked for once. `rest` and
    `split` may be called while another thread takes blocks.
    """

    def __init__(self, roots: list[CID], limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._pending = [(root.v1, ROOT) for root in reversed(roots)]
        self._seen: set[CID] = set()
        self._lock = threading.Lock()
        self.was_split = False
        self._settle()

    def _settle(self) -> None:
        while self._pending and self._pending[-1][0] in self._seen:
            self._pending.pop()

    @property
    def expected(self) -> CID | None:
        return self._pending[-1][0] if self._pending else None

    def take(self, block: bytes) -> Node:
        """The expected block, hash checked. Raises InvalidContent, ContentTooLarge for where it leads."""
        with self._lock:
            cid, depth = self._pending[-1]
            if len(self._seen) >= self._limits.blocks:
                raise ContentTooLarge(f"the content has more than {self._limits.blocks} blocks")
            node = decode(cid, block, self._limits)
            links = links_of(node, depth, self._limits)
            for link, _ in links:
                link.require_fetchable()
            self._pending.pop()
            self._seen.add(cid)
            fresh = [(link.v1, below) for link, below in links if link.v1 not in self._seen]
            self._pending += reversed(fresh)
            if len(self._pending) > self._limits.blocks:
                raise ContentTooLarge(f"the content has more than {self._limits.blocks} links")
            self._settle()
        return node

    def leaves_ahead(self, most: int) -> list[CID]:
        """Raw blocks that will be expected soon, the next first."""
        soon = reversed(self._pending[-most:])
        return [cid for cid, _ in soon if cid.codec == RAW and cid not in self._seen]

    def rest(self) -> list[CID]:
        """The blocks that would complete the walk with all below them, the next first."""
        with self._lock:
            return list(dict.fromkeys(cid for cid, _ in reversed(self._pending) if cid not in self._seen))

    def split(self, keep: int) -> list[CID]:
        """Expect only the next `keep` of `rest` from now on, at least one; the others are returned."""
        kept, others = set(self.rest()[: max(keep, 1)]), list[CID]()
        with self._lock:
            if self._pending:
                kept.add(self._pending[-1][0])
            for cid, _ in reversed(self._pending):
                if cid not in kept and cid not in self._seen:
                    others.append(cid)
            self._pending = [entry for entry in self._pending if entry[0] in kept or entry[0] in self._seen]
            self.was_split |= bool(others)
        return list(dict.fromkeys(others))


# --- adding up ------------------------------------------------------------------------------


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


def missing_block(cid: CID) -> NoReturn:
    """Raises ContentNotFound for a block that should be in the store."""
    raise ContentNotFound(f"block {cid} is not in the store")
