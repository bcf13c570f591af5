"""Files and folders on disk to UnixFS blocks, with the CIDs of `ipfs add -r --cid-version=1`.

A path is read once, front to back, and its blocks are handed out as they are made: memory holds one
chunk, the links of one file and the names of the folders that are open, whatever the size.

What is taken along: files, folders (empty ones too) and, by policy, symlinks, which are never
followed. As with kubo, names that begin with a dot are left out of folders unless `hidden` is set;
mode and time do not enter the CID. Sockets, pipes and devices inside a folder are left out and
named in `Added.skipped`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bacalhau_p2p.errors import ContentError, ContentTooLarge
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.dag_pb import (
    PBLink,
    encode_block,
    encode_directory,
    encode_file,
    encode_symlink,
)
from bacalhau_p2p.ipfs.format.hamt import Blocks, Child, shard_blocks
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits

Symlinks = Literal["keep", "skip", "refuse"]
"""What to do with a symlink: store it as one, leave it out, or raise."""

Sink = Callable[[CID, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The choices that make the CID of given bytes; another profile gives another CID."""

    name: str = "default"
    chunk: int = 256 * 1024
    """Bytes of one leaf."""
    links: int = 174
    """Links of one block of a file."""
    shard_above: int = 256 * 1024
    """A folder is sharded when it has more bytes than this."""
    shard_by: Literal["links", "block"] = "links"
    """What is counted of a folder: its names and binary CIDs, or all of the block that it would be."""


DEFAULT_PROFILE = Profile()
"""Of a bare `ipfs add --cid-version=1`."""

UNIXFS_V1_2025 = Profile(name="unixfs-v1-2025", chunk=1024 * 1024, links=1024, shard_by="block")
"""Of IPIP-0499, which newer IPFS tools offer under this name."""

PROFILES = {profile.name: profile for profile in (DEFAULT_PROFILE, UNIXFS_V1_2025)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A file or folder as content.

    `size` is the bytes of all its files; `entries` gives the CID of each top-level entry of a
    folder, by name; `skipped` are paths below the root that were left out for what they are.
    """

    cid: CID
    size: int
    entries: dict[str, CID] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def build(
    path: Path,
    sink: Sink,
    *,
    symlinks: Symlinks = "keep",
    hidden: bool = False,
    profile: Profile = DEFAULT_PROFILE,
    limits: Limits = DEFAULT_LIMITS,
) -> Added:
    """Give every block of the file, folder or symlink at `path` to `sink`, the root last.

    A block that occurs twice is given twice. Raises ContentError (unreadable, a name that is not
    UTF-8, a symlink under "refuse") and ContentTooLarge (what nobody could fetch under `limits`);
    what `sink` raises passes through.
    """
    blocks = iterate_blocks(path, symlinks=symlinks, hidden=hidden, profile=profile, limits=limits)
    try:
        while True:
            sink(*next(blocks))
    except StopIteration as end:
        added: Added = end.value
        return added


def cid_of(
    path: Path,
    *,
    symlinks: Symlinks = "keep",
    hidden: bool = False,
    profile: Profile = DEFAULT_PROFILE,
) -> CID:
    """The CID that `path` has as content; nothing is stored. Raises as `build`."""
    return build(path, lambda cid, block: None, symlinks=symlinks, hidden=hidden, profile=profile).cid


def iterate_blocks(
    path: Path,
    *,
    symlinks: Symlinks = "keep",
    hidden: bool = False,
    profile: Profile = DEFAULT_PROFILE,
    limits: Limits = DEFAULT_LIMITS,
) -> Generator[tuple[CID, bytes], None, Added]:
    """`build` as a generator: yields each block with its CID and returns the `Added`."""
    return _Build(symlinks, hidden, profile, limits).run(path)


def file_blocks(chunks: Iterable[bytes], profile: Profile = DEFAULT_PROFILE) -> Blocks:
    """The blocks of one file whose content comes in chunks of `profile.chunk` bytes, the last
    shorter; the root comes last and is returned."""
    pending: list[list[_Part]] = [[]]
    for chunk in chunks:
        cid = CID.of(RAW, chunk)
        yield cid, chunk
        yield from _append(pending, 0, _Part(cid, len(chunk), len(chunk)), profile.links)
    if not pending[0]:
        empty = CID.of(RAW, b"")
        yield empty, b""
        return Child(empty, 0)
    level = 0
    while level + 1 < len(pending) or len(pending[level]) > 1:
        part = yield from _join(pending[level])
        pending[level] = []
        yield from _append(pending, level + 1, part, profile.links)
        level += 1
    root = pending[level][0]
    return Child(root.cid, root.tsize)


SMALL_ENTRIES = 32
SMALL_BYTES = 64 * 1024


def is_small(folder: Path) -> bool:
    """Whether so little is in a folder that a thread to go through it costs more than going through it:
    at most SMALL_ENTRIES entries at any depth, SMALL_BYTES bytes in all. False for anything else."""
    entries = size = 0
    folders = [os.fspath(folder)]
    try:
        while folders:
            with os.scandir(folders.pop()) as found:
                for entry in found:
                    entries += 1
                    size += entry.stat(follow_symlinks=False).st_size
                    if entries > SMALL_ENTRIES or size > SMALL_BYTES:
                        return False
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Part:
    """A block of a file: its bytes of content, and its bytes of blocks."""

    cid: CID
    size: int
    tsize: int


def _append(
    pending: list[list[_Part]], level: int, part: _Part, width: int
) -> Generator[tuple[CID, bytes], None, None]:
    """Put a part on its level; a full level becomes one part of the next only when more follows."""
    if level == len(pending):
        pending.append([])
    if len(pending[level]) == width:
        full = pending[level]
        pending[level] = []
        joined = yield from _join(full)
        yield from _append(pending, level + 1, joined, width)
    pending[level].append(part)


def _join(parts: list[_Part]) -> Generator[tuple[CID, bytes], None, _Part]:
    size = sum(part.size for part in parts)
    links = [PBLink(part.cid, b"", part.tsize) for part in parts]
    block = encode_block(links, encode_file(size, (part.size for part in parts)))
    cid = CID.of(DAG_PB, block)
    yield cid, block
    return _Part(cid, size, len(block) + sum(part.tsize for part in parts))


def _single(block: bytes) -> Blocks:
    cid = CID.of(DAG_PB, block)
    yield cid, block
    return Child(cid, len(block))


class _Build:
    """One walk over a path. Folders are opened by descriptor, so that a symlink that is put in the
    place of a folder meanwhile leads nowhere."""

    def __init__(self, symlinks: Symlinks, hidden: bool, profile: Profile, limits: Limits) -> None:
        self._symlinks = symlinks
        self._hidden = hidden
        self._profile = profile
        self._limits = limits
        self._size = 0
        self._entries = 0
        self._skipped: list[str] = []

    def run(self, path: Path) -> Generator[tuple[CID, bytes], None, Added]:
        top: dict[bytes, Child] = {}
        with _reading(str(path)):
            mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            with _reading(str(path)):
                folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            root = yield from self._folder(folder, "", 1, top)
        else:
            with _reading(str(path)):
                parent = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                found = yield from self._entry(parent, path.name, str(path), mode, 0)
            finally:
                os.close(parent)
            if found is None:
                raise ContentError(f"{path} is neither a file, nor a folder, nor a symlink to be kept")
            root = found
        return Added(
            cid=root.cid,
            size=self._size,
            entries={name.decode(): child.cid for name, child in top.items()},
            skipped=tuple(self._skipped),
        )

    def _folder(self, folder: int, where: str, depth: int, children: dict[bytes, Child]) -> Blocks:
        """The folder of this descriptor, which is closed; its entries are put into `children`."""
        try:
            if depth > self._limits.folder_depth:
                raise ContentTooLarge(f"{where} is nested more than {self._limits.folder_depth} folders deep")
            with _reading(where or "."), os.scandir(folder) as scan:
                listed = sorted((os.fsencode(entry.name), entry.name) for entry in scan)
            for raw, name in listed:
                if raw.startswith(b".") and not self._hidden:
                    continue
                inner = f"{where}/{name}" if where else name
                self._check_name(raw, inner)
                with _reading(inner):
                    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                child = yield from self._entry(folder, name, inner, mode, depth)
                if child is None:
                    self._skipped.append(inner)
                else:
                    children[raw] = child
        finally:
            os.close(folder)
        return (yield from self._directory(children))

    def _directory(self, children: dict[bytes, Child]) -> Blocks:
        width = sum(len(name) + len(child.cid.binary) for name, child in children.items())
        if width > self._profile.shard_above:  # the block would be larger still
            return (yield from shard_blocks(children))
        links = [PBLink(child.cid, name, child.tsize) for name, child in sorted(children.items())]
        block = encode_block(links, encode_directory())
        if self._profile.shard_by == "block" and len(block) > self._profile.shard_above:
            return (yield from shard_blocks(children))
        cid = CID.of(DAG_PB, block)
        yield cid, block
        return Child(cid, len(block) + sum(child.tsize for child in children.values()))

    def _entry(
        self, parent: int, name: str, where: str, mode: int, depth: int
    ) -> Generator[tuple[CID, bytes], None, Child | None]:
        """One entry of an open folder, or None when it is to be left out."""
        if stat.S_ISLNK(mode):
            if self._symlinks == "refuse":
                raise ContentError(f"{where} is a symlink")
            if self._symlinks == "skip":
                return None
            with _reading(where):
                target = os.readlink(os.fsencode(name), dir_fd=parent)
            return (yield from _single(encode_block((), encode_symlink(target))))
        if stat.S_ISDIR(mode):
            with _reading(where):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                folder = os.open(name, flags, dir_fd=parent)
            return (yield from self._folder(folder, where, depth + 1, {}))
        if stat.S_ISREG(mode):
            # O_NONBLOCK: a pipe that took the file's place must not hold us
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with _reading(where):
                file = os.open(name, flags, dir_fd=parent)
            try:
                return (yield from file_blocks(self._chunks(file, where), self._profile))
            finally:
                os.close(file)
        return None

    def _chunks(self, file: int, where: str) -> Iterator[bytes]:
        size = self._profile.chunk
        while True:
            with _reading(where):
                chunk = os.read(file, size)
                while chunk and len(chunk) < size and (more := os.read(file, size - len(chunk))):
                    chunk += more
            if not chunk:
                return
            self._size += len(chunk)
            self._limits.check_bytes(self._size)
            yield chunk

    def _check_name(self, raw: bytes, where: str) -> None:
        self._entries += 1
        self._limits.check_entries(self._entries)
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            raise ContentError(f"the name {where!r} is not UTF-8") from None
        if len(os.fsencode(where)) > self._limits.path:
            raise ContentTooLarge(f"a path is longer than {self._limits.path} bytes: {where[:100]!r}...")


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turns the system's refusal to read into a ContentError."""
    try:
        yield
    except OSError as error:
        raise ContentError(f"{where} cannot be read: {error.strerror or error}") from None
