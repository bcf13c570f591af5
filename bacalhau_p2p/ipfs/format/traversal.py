"""From block to block: what a node links to, the entries of a folder, and a walk through a DAG.

Nothing here fetches or writes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.hamt import check_level, check_slots
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.unixfs import Entry, File, Folder, Node, Shard, decode, require_shard


class Depth(NamedTuple):
    """Levels below the root: folders, shards of the current folder, blocks of the current file."""

    folders: int = 0
    shards: int = 0
    parts: int = 0


ROOT = Depth()


def links_of(node: Node, depth: Depth, limits: Limits) -> list[tuple[CID, Depth]]:
    """The blocks that a node links to, in its order, with their depths.

    Raises InvalidContent where they are deeper than `limits` allow.
    """
    if isinstance(node, File) and node.parts:
        below = _part_depth(depth, limits)
        return [(part.cid, below) for part in node.parts]
    if isinstance(node, Folder) and node.entries:
        below = _entry_depth(depth, limits)
        return [(entry.cid, below) for entry in node.entries]
    if isinstance(node, Shard):
        entry_depth = shard_depth = depth
        if any(name for _, name, _ in node.links):
            entry_depth = _entry_depth(depth, limits)
        if not all(name for _, name, _ in node.links):
            shard_depth = _shard_depth(depth, node.fanout)
        return [(cid, entry_depth if name else shard_depth) for _, name, cid in node.links]
    return []


def _part_depth(depth: Depth, limits: Limits) -> Depth:
    limits.check_file_depth(depth.parts + 1)
    return Depth(depth.folders, 0, depth.parts + 1)


def _entry_depth(depth: Depth, limits: Limits) -> Depth:
    limits.check_folder_depth(depth.folders + 1)
    return Depth(depth.folders + 1, 0, 0)


def _shard_depth(depth: Depth, fanout: int) -> Depth:
    check_level(depth.shards + 1, fanout)
    return Depth(depth.folders, depth.shards + 1, 0)


def folder_entries(cid: CID, node: Folder | Shard, load: Callable[[CID], Node | None]) -> Iterator[Entry]:
    """The entries of a folder, plain or sharded. `load` returns the node of a further shard, or None to
    leave out its entries.

    Raises InvalidContent for a child that is no shard, an empty shard, and a name in the wrong slot.
    """
    if isinstance(node, Folder):
        yield from node.entries
        return
    pending: list[tuple[CID, Shard, tuple[int, ...]]] = [(cid, node, ())]
    while pending:
        shard_cid, shard, slots = pending.pop()
        for number, name, link in shard.links:
            if name:
                check_slots(shard_cid, name, (*slots, number), shard.fanout)
                yield Entry(name.decode("utf-8"), link)
                continue
            child = load(link)
            if child is None:
                continue
            check_level(len(slots) + 1, shard.fanout)
            pending.append((link, require_shard(link, child, shard.fanout), (*slots, number)))


class Walk:
    """A depth-first walk through a DAG whose blocks arrive from elsewhere.

    `expected` is the next block, None at the end; each block is expected once. `rest` and `split` may
    be called while another thread adds blocks.
    """

    def __init__(self, roots: list[CID], limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._pending = [(root.v1, ROOT) for root in reversed(roots)]
        self._seen: set[CID] = set()
        self._lock = threading.Lock()
        self.was_split = False
        self._skip_seen()

    def _skip_seen(self) -> None:
        while self._pending and self._pending[-1][0] in self._seen:
            self._pending.pop()

    @property
    def expected(self) -> CID | None:
        return self._pending[-1][0] if self._pending else None

    def take(self, block: bytes) -> Node:
        """Accept the expected block, whose hash is verified, and expect what it links to.

        Raises InvalidContent, ContentTooLarge.
        """
        with self._lock:
            cid, depth = self._pending[-1]
            self._limits.check_blocks(len(self._seen) + 1)
            node = decode(cid, block, self._limits)
            links = links_of(node, depth, self._limits)
            for link, _ in links:
                link.require_fetchable()
            self._pending.pop()
            self._seen.add(cid)
            fresh = [(link.v1, below) for link, below in links if link.v1 not in self._seen]
            self._pending += reversed(fresh)
            self._limits.check_blocks(len(self._pending))
            self._skip_seen()
        return node

    def leaves_ahead(self, limit: int) -> list[CID]:
        """Raw blocks among the next `limit` pending ones, the next first."""
        ahead = reversed(self._pending[-limit:])
        return [cid for cid, _ in ahead if cid.codec == RAW and cid not in self._seen]

    def rest(self) -> list[CID]:
        """The blocks that, with everything below them, would complete the walk; the next first."""
        with self._lock:
            return list(dict.fromkeys(cid for cid, _ in reversed(self._pending) if cid not in self._seen))

    def split(self, keep: int) -> list[CID]:
        """Keep the next `keep` blocks of `rest`, at least one; drop the others and return them."""
        kept, dropped = set(self.rest()[: max(keep, 1)]), list[CID]()
        with self._lock:
            if self._pending:
                kept.add(self._pending[-1][0])
            for cid, _ in reversed(self._pending):
                if cid not in kept and cid not in self._seen:
                    dropped.append(cid)
            self._pending = [entry for entry in self._pending if entry[0] in kept or entry[0] in self._seen]
            self.was_split |= bool(dropped)
        return list(dict.fromkeys(dropped))
