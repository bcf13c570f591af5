"""Writes the blocks of a DAG to files, in depth-first order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bacalhau_p2p.ipfs.files.output_tree import Extent, Output, OutputTree
from bacalhau_p2p.ipfs.files.symlinks import stays_inside
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.hamt import check_level, check_slots
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.format.traversal import ROOT, Depth, links_of
from bacalhau_p2p.ipfs.format.unixfs import (
    File,
    Folder,
    Node,
    Shard,
    Symlink,
    decode,
    require_part,
    require_shard,
)

CONTENT = "content"
"""The name of the root in the folder to which it is written."""


class _Pending(NamedTuple):
    """A block that is to be written to `output`: an entry of a folder, with `fanout` a further shard of it,
    or a part of a file."""

    cid: CID
    output: Output
    depth: Depth
    name: str = ""
    slots: tuple[int, ...] = ()
    fanout: int = 0
    offset: int = 0
    size: int = 0


class DagWriter:
    """One DAG that is being written. `expected` is the next block, None when all are written.

    Every method may raise OSError. The caller checks, before or after, what must hold of the DAG as a whole
    (`dag_stat`).
    """

    def __init__(self, root: CID, folder: int, *, limits: Limits, keep_symlinks: bool) -> None:
        """`folder` is the descriptor of an empty folder, which the caller closes."""
        self._limits = limits
        self._keep_symlinks = keep_symlinks
        self._tree = OutputTree(folder)
        self._pending: list[_Pending] = []
        self._deferred: list[_Pending] = []
        self.bytes = 0
        self.entries = 0
        self.skipped: list[str] = []
        self._expect([_Pending(root.v1, self._tree.root, ROOT, CONTENT)])

    @property
    def expected(self) -> CID | None:
        return self._pending[-1].cid if self._pending else None

    def write(self, block: bytes) -> Extent | None:
        """Write the expected block, whose hash is verified, and expect what it links to.

        Returns where its bytes of content are, if it has any. Raises InvalidContent, ContentTooLarge.
        """
        pending = self._pending.pop()
        node = decode(pending.cid, block, self._limits)
        extent: Extent | None = None
        if pending.output.is_file:
            extent = self._part(pending, node)
        elif pending.fanout:
            self._further_shard(pending, node)
        else:
            extent = self._entry(pending, node)
        self._done(pending)
        return extent

    def defer(self) -> None:
        """Leave out the expected block until `resume_deferred`."""
        pending = self._pending.pop()
        self._deferred.append(pending)
        self._done(pending)

    def resume_deferred(self) -> None:
        """Expect the blocks that were deferred. Nothing else may be expected any more."""
        assert not self._pending
        deferred, self._deferred = self._deferred, []
        self._expect(deferred)

    def read(self, extent: Extent) -> bytes:
        """The bytes of content at this place, unless somebody else has changed them."""
        return self._tree.read(extent)

    def close(self) -> None:
        """Close all files; no other call may follow."""
        self._tree.close()

    # --- kinds of blocks

    def _entry(self, pending: _Pending, node: Node) -> Extent | None:
        if isinstance(node, File):
            if not node.parts:
                self._count_bytes(node.size)
                return self._tree.write_file(
                    pending.output, pending.name, node.data, executable=node.executable
                )
            file = self._tree.create_file(pending.output, pending.name, executable=node.executable)
            return self._content(pending, node, file, 0)
        if isinstance(node, Symlink):
            self._symlink(pending, node)
            return None
        folder = self._tree.create_folder(pending.output, pending.name)
        if isinstance(node, Folder):
            self._folder(pending, node, folder)
        else:
            self._shard(pending, node, folder, ())
        self._tree.close_if_done(folder)
        return None

    def _symlink(self, pending: _Pending, node: Symlink) -> None:
        depth = pending.depth.folders
        if self._keep_symlinks and depth and stays_inside(node.target, depth - 1):
            self._tree.create_symlink(pending.output, pending.name, node.target)
        else:
            self.skipped.append("/".join((*pending.output.path.names()[1:], pending.name)) if depth else "")

    def _folder(self, pending: _Pending, node: Folder, folder: Output) -> None:
        links = links_of(node, pending.depth, self._limits)
        self._expect(
            [
                _Pending(cid.v1, folder, depth, entry.name)
                for entry, (cid, depth) in zip(node.entries, links, strict=True)
            ]
        )
        self._count(len(links))

    def _further_shard(self, pending: _Pending, node: Node) -> None:
        self._shard(pending, require_shard(pending.cid, node, pending.fanout), pending.output, pending.slots)

    def _shard(self, pending: _Pending, node: Shard, folder: Output, slots: tuple[int, ...]) -> None:
        children, entries = [], 0
        links = links_of(node, pending.depth, self._limits)
        for (number, name, link), (_, depth) in zip(node.links, links, strict=True):
            if name:
                check_slots(pending.cid, name, (*slots, number), node.fanout)
                children.append(_Pending(link.v1, folder, depth, name.decode("utf-8")))
                entries += 1
            else:
                check_level(len(slots) + 1, node.fanout)
                children.append(_Pending(link.v1, folder, depth, "", (*slots, number), node.fanout))
        self._expect(children)
        self._count(entries)

    def _part(self, pending: _Pending, node: Node) -> Extent:
        part = require_part(pending.cid, node, pending.size)
        return self._content(pending, part, pending.output, pending.offset)

    def _content(self, pending: _Pending, node: File, file: Output, offset: int) -> Extent:
        """Write a file or a part of one from `offset` on, and expect its parts."""
        self._count_bytes(len(node.data))
        extent = self._tree.write(file, node.data, offset)
        at = offset + extent.size
        parts = []
        for part, (_, depth) in zip(node.parts, links_of(node, pending.depth, self._limits), strict=True):
            parts.append(_Pending(part.cid.v1, file, depth, offset=at, size=part.size))
            at += part.size
        self._expect(parts)
        return extent

    # --- what comes next

    def _expect(self, blocks: Sequence[_Pending]) -> None:
        for pending in blocks:
            pending.cid.require_fetchable()
            pending.output.pending += 1
        self._pending.extend(reversed(blocks))
        self._limits.check_blocks(len(self._pending) + len(self._deferred))

    def _done(self, pending: _Pending) -> None:
        pending.output.pending -= 1
        self._tree.close_if_done(pending.output)

    def _count_bytes(self, size: int) -> None:
        self.bytes += size
        self._limits.check_bytes(self.bytes)

    def _count(self, entries: int) -> None:
        self.entries += entries
        self._limits.check_entries(self.entries)
