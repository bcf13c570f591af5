"""From block to block: what a node links to and how deep, the entries of a folder, and a walk through a DAG.

Nothing here fetches or writes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bacalhau_p2p.errors import ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.hamt import MAX_SHARD_DEPTH, check_placement, max_levels
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.unixfs import Entry, File, Folder, Node, Shard, decode


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
