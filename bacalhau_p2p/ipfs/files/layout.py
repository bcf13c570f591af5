"""Where the blocks of a DAG go on disk: one place after the other, depth first.

Everything lies below one open folder and is reached through descriptors, under names that were
checked, in files that must not exist yet; no DAG can write anywhere else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

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

TOP = "content"
"""The name of the root in the folder into which it is written."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Path(NamedTuple):
    """A file or folder below the open folder: `above` is the folder that it is in, None for that one."""

    above: Path | None
    name: str

    def names(self) -> tuple[str, ...]:
        """From the root of the content, which is `TOP`, down."""
        names = []
        path = self
        while path.above is not None:
            names.append(path.name)
            path = path.above
        return tuple(reversed(names))


class Written(NamedTuple):
    """Where the content of a block lies."""

    file: Path
    offset: int
    size: int


@dataclass(slots=True, eq=False)
class _Target:
    """A file or folder with places that are not filled yet; it is open while one of them may be next."""

    path: Path
    descriptor: int
    left: int
    """Places that are to be filled in turn; with none left it is closed."""
    later: int = 0
    """Places that were put off."""
    is_file: bool = False


class _Place(NamedTuple):
    """Where a block goes: an entry of a folder, with `fanout` a further shard of it, or a part of a file."""

    cid: CID
    target: _Target
    depth: Depth
    name: str = ""
    slots: tuple[int, ...] = ()
    fanout: int = 0
    offset: int = 0
    size: int = 0


class Placing:
    """One DAG being written. `expected` is the block that is to be placed next, None when all are.

    Every method may raise OSError. What must hold of the DAG as a whole (`dag_stat`) is for the
    caller to check, before or behind.
    """

    def __init__(self, root: CID, folder: int, *, limits: Limits, keep_symlinks: bool) -> None:
        """`folder` is the descriptor of an empty folder; it stays the caller's."""
        self._limits = limits
        self._keep_symlinks = keep_symlinks
        self._folder = folder
        self._open: set[_Target] = set()
        top = _Target(Path(None, ""), folder, 1)
        self._stack = [_Place(root.v1, top, ROOT, TOP)]
        self._later: list[_Place] = []
        self.bytes = 0
        self.entries = 0
        self.skipped: list[str] = []

    @property
    def expected(self) -> CID | None:
        return self._stack[-1].cid if self._stack else None

    def place(self, block: bytes) -> Written | None:
        """Put the expected block, hash checked, where it belongs; what it links to is expected next.

        Gives where its bytes of content are, if it has any. Raises InvalidContent, ContentTooLarge.
        """
        place = self._stack.pop()
        node = decode(place.cid, block, self._limits)
        written: Written | None = None
        if place.target.is_file:
            written = self._part(place, node)
        elif place.fanout:
            self._further_shard(place, node)
        else:
            written = self._entry(place, node)
        self._fill(place.target)
        return written

    def put_off(self) -> None:
        """Leave the expected place empty until `resume`."""
        place = self._stack.pop()
        self._later.append(place)
        place.target.later += 1
        self._fill(place.target)

    def resume(self) -> None:
        """Expect what was put off, when nothing else is expected any more."""
        assert not self._stack
        self._later.reverse()
        self._stack, self._later = self._later, []
        for place in self._stack:
            place.target.left, place.target.later = place.target.left + place.target.later, 0

    def read(self, written: Written) -> bytes:
        """The bytes of content that were written there, if nobody else has changed them."""
        file = self._reopened(written.file, _READ_FILE)
        try:
            return os.pread(file, written.size, written.offset)
        finally:
            os.close(file)

    def close(self) -> None:
        """Close what is open; no other call may follow."""
        for target in self._open:
            os.close(target.descriptor)
        self._open.clear()

    # --- one place

    def _entry(self, place: _Place, node: Node) -> Written | None:
        folder = self._descriptor(place.target)
        if isinstance(node, File):
            return self._file(place, node, folder)
        if isinstance(node, Symlink):
            depth = place.depth.folders
            if self._keep_symlinks and depth and stays_inside(node.target, depth - 1):
                os.symlink(node.target, place.name, dir_fd=folder)
            else:
                self.skipped.append("/".join(self._path(place).names()[1:]))
            return None
        assert isinstance(node, Folder | Shard)
        os.mkdir(place.name, 0o755, dir_fd=folder)
        if not (node.entries if isinstance(node, Folder) else node.links):
            return None
        target = _Target(self._path(place), os.open(place.name, _FOLDER, dir_fd=folder), 0)
        self._open.add(target)
        if isinstance(node, Folder):
            links = links_of(node, place.depth, self._limits)
            self._expect(
                [
                    _Place(cid.v1, target, depth, entry.name)
                    for entry, (cid, depth) in zip(node.entries, links, strict=True)
                ]
            )
            self._count(len(links))
        else:
            self._shard(place, node, target, ())
        return None

    def _further_shard(self, place: _Place, node: Node) -> None:
        self._shard(place, require_shard(place.cid, node, place.fanout), place.target, place.slots)

    def _shard(self, place: _Place, node: Shard, target: _Target, slots: tuple[int, ...]) -> None:
        places, entries = [], 0
        links = links_of(node, place.depth, self._limits)
        for (number, name, link), (_, depth) in zip(node.links, links, strict=True):
            if name:
                check_slots(place.cid, name, (*slots, number), node.fanout)
                places.append(_Place(link.v1, target, depth, name.decode("utf-8")))
                entries += 1
                continue
            check_level(len(slots) + 1, node.fanout)
            places.append(_Place(link.v1, target, depth, "", (*slots, number), node.fanout))
        self._expect(places)
        self._count(entries)

    def _file(self, place: _Place, node: File, folder: int) -> Written:
        file = os.open(place.name, _NEW_FILE, 0o644, dir_fd=folder)
        path = self._path(place)
        if not node.parts:
            try:
                self._write(file, node.data, 0)
            finally:
                os.close(file)
        else:
            target = _Target(path, file, 0, is_file=True)
            self._open.add(target)
            self._content(place, node, target, 0)
        return Written(path, 0, len(node.data))

    def _part(self, place: _Place, node: Node) -> Written:
        node = require_part(place.cid, node, place.size)
        self._content(place, node, place.target, place.offset)
        return Written(place.target.path, place.offset, len(node.data))

    def _content(self, place: _Place, node: File, target: _Target, offset: int) -> None:
        """The content of a file or a part of one, from `offset` of the file on."""
        self._write(self._descriptor(target), node.data, offset)
        at = offset + len(node.data)
        places = []
        for part, (_, depth) in zip(node.parts, links_of(node, place.depth, self._limits), strict=True):
            places.append(_Place(part.cid.v1, target, depth, offset=at, size=part.size))
            at += part.size
        self._expect(places)

    def _write(self, file: int, data: bytes, offset: int) -> None:
        self.bytes += len(data)
        rest = memoryview(data)
        while rest:
            written = os.pwrite(file, rest, offset)
            rest, offset = rest[written:], offset + written

    # --- what comes next

    def _expect(self, places: list[_Place]) -> None:
        for place in places:
            place.cid.require_fetchable()
            place.target.left += 1
        self._stack.extend(reversed(places))
        self._limits.check_blocks(len(self._stack) + len(self._later))

    def _count(self, entries: int) -> None:
        self.entries += entries
        self._limits.check_entries(self.entries)

    # --- descriptors

    def _path(self, place: _Place) -> Path:
        return Path(place.target.path, place.name)

    def _descriptor(self, target: _Target) -> int:
        """That of a target, which is opened again where it was closed because all else was put off."""
        if target.descriptor < 0:
            target.descriptor = self._reopened(target.path, _OLD_FILE if target.is_file else _FOLDER)
            self._open.add(target)
        return target.descriptor

    def _fill(self, target: _Target) -> None:
        """One of its places is done with."""
        target.left -= 1
        if not target.left and target in self._open:
            self._open.discard(target)
            os.close(target.descriptor)
            target.descriptor = -1

    def _reopened(self, path: Path, flags: int) -> int:
        """A descriptor of something that was written, reached without following a symlink."""
        *folders, last = path.names()
        descriptor = os.dup(self._folder)
        for name, wanted in (*((name, _FOLDER) for name in folders), (last, flags)):
            above = descriptor
            try:
                descriptor = os.open(name, wanted, dir_fd=above)
            finally:
                os.close(above)
        return descriptor


def stays_inside(target: str, depth: int) -> bool:
    """Whether a symlink that lies `depth` folders below the root can lead nowhere but below the root.

    `..` may only stand in front: there it climbs real folders, while behind a name it would climb
    from wherever that name leads.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    return not target.startswith("/") and climbs <= depth and ".." not in parts[climbs:]
