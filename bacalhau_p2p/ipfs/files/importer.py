"""Files and folders on disk to UnixFS blocks, with the CIDs of `ipfs add -r --cid-version=1`.

A path is read once, front to back, and its blocks are passed on as they are made: memory holds one chunk,
the links of one file and the names of the open folders, at any size.

Imported are files, folders (also empty ones) and, by option, symlinks, which are never followed. As with
kubo, names that start with a dot are left out of folders unless `hidden` is set, and time and mode do not
affect the CID, unless `programs` is set: then the root of a file that its owner may execute has mode 0755.
Sockets, pipes and devices in a folder are left out and listed in `Added.skipped`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from bacalhau_p2p.errors import ContentError, ContentTooLarge
from bacalhau_p2p.ipfs.files.symlinks import stays_inside
from bacalhau_p2p.ipfs.format.builder import file_blocks, folder_blocks, symlink_blocks
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.profiles import DEFAULT_PROFILE, Profile
from bacalhau_p2p.ipfs.format.subtree import Blocks, Subtree

Symlinks = Literal["keep", "inside", "skip", "refuse"]
"""What to do with a symlink: import it as a symlink, do so if it cannot lead out of the root, leave it out,
or raise."""

PROGRAM = 0o755
"""The mode of files that their owner may execute."""

Sink = Callable[[CID, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """An imported file or folder.

    `size` is the bytes of all files; `entries` are the CIDs of the top-level entries of a folder, by name;
    `skipped` are the paths below the root of what cannot be imported, each with the reason; `hidden` is how
    many files and folders were left out because their names start with a dot; `root` is the root block, if it
    was kept.
    """

    cid: CID
    size: int
    entries: dict[str, CID] = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()
    hidden: int = 0
    root: bytes = b""


def build(
    path: Path,
    sink: Sink,
    *,
    symlinks: Symlinks = "keep",
    hidden: bool = False,
    programs: bool = False,
    profile: Profile = DEFAULT_PROFILE,
    limits: Limits = DEFAULT_LIMITS,
) -> Added:
    """Pass every block of the file, folder or symlink at `path` to `sink`, the root last, which is kept.

    A block that occurs twice is passed twice. Raises ContentError for what cannot be read, a name that is
    not UTF-8 and a symlink under "refuse", ContentTooLarge for content above `limits`, and what `sink`
    raises.
    """
    blocks = iterate_blocks(
        path, symlinks=symlinks, hidden=hidden, programs=programs, profile=profile, limits=limits
    )
    block = b""
    try:
        while True:
            cid, block = next(blocks)
            sink(cid, block)
    except StopIteration as end:
        added: Added = end.value
        return replace(added, root=block)


def cid_of(
    path: Path,
    *,
    symlinks: Symlinks = "keep",
    hidden: bool = False,
    programs: bool = False,
    profile: Profile = DEFAULT_PROFILE,
) -> CID:
    """The CID of the file or folder at `path`; nothing is stored. Raises as `build`."""
    return build(
        path, lambda cid, block: None, symlinks=symlinks, hidden=hidden, programs=programs, profile=profile
    ).cid


def iterate_blocks(
    path: Path,
    *,
    symlinks: Symlinks = "keep",
    hidden: bool = False,
    programs: bool = False,
    profile: Profile = DEFAULT_PROFILE,
    limits: Limits = DEFAULT_LIMITS,
) -> Generator[tuple[CID, bytes], None, Added]:
    """`build` as a generator: yields each block with its CID, and returns what was added."""
    return _Import(symlinks, hidden, programs, profile, limits).run(path)


SMALL_ENTRIES = 32
"""Entries of a small folder, at any depth."""
SMALL_BYTES = 64 * 1024
"""Bytes of all files in a small folder."""


def is_small_folder(folder: Path) -> bool:
    """Whether importing this folder takes less time than starting a thread for it. False for files."""
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


class _Import:
    """One walk over a path. Folders are opened by descriptor, so that a symlink that replaces a folder
    during the walk is not followed."""

    def __init__(
        self, symlinks: Symlinks, hidden: bool, programs: bool, profile: Profile, limits: Limits
    ) -> None:
        self._symlinks = symlinks
        self._hidden = hidden
        self._programs = programs
        self._profile = profile
        self._limits = limits
        self._size = 0
        self._entries = 0
        self._skipped: list[tuple[str, str]] = []
        self._left_hidden = 0

    def run(self, path: Path) -> Generator[tuple[CID, bytes], None, Added]:
        top: dict[bytes, Subtree] = {}
        with _read_errors(str(path)):
            mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            with _read_errors(str(path)):
                folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            root = yield from self._folder(folder, "", 1, top)
        else:
            with _read_errors(str(path)):
                parent = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                found = yield from self._entry(parent, path.name, str(path), mode, 0)
            finally:
                os.close(parent)
            if found is None:
                raise ContentError(f"{path} is not a file or folder")
            root = found
        return Added(
            cid=root.cid,
            size=self._size,
            entries={name.decode(): child.cid for name, child in top.items()},
            skipped=tuple(self._skipped),
            hidden=self._left_hidden,
        )

    def _folder(self, folder: int, where: str, depth: int, children: dict[bytes, Subtree]) -> Blocks:
        """The blocks of an open folder, which is closed; its entries are added to `children`."""
        try:
            if depth > self._limits.folder_depth:
                most = self._limits.folder_depth
                raise ContentTooLarge(f"folders are nested more than {most} levels deep: {_shorten(where)}")
            for raw, name in self._listed(folder, where):
                if raw.startswith(b".") and not self._hidden:
                    self._left_hidden += 1
                    continue
                inner = f"{where}/{name}" if where else name
                self._check_name(raw, inner)
                with _read_errors(inner):
                    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                child = yield from self._entry(folder, name, inner, mode, depth)
                if child is None:
                    link = stat.S_ISLNK(mode)
                    why = "a link that leads out of the folder" if link else "not a file, folder or link"
                    self._skipped.append((inner, why))
                else:
                    children[raw] = child
        finally:
            os.close(folder)
        return (yield from folder_blocks(children, self._profile))

    def _listed(self, folder: int, where: str) -> list[tuple[bytes, str]]:
        """The names in a folder, sorted. Raises ContentTooLarge before they take much memory."""
        left = self._limits.entries - self._entries
        with _read_errors(where or "."), os.scandir(folder) as scan:
            names = [entry.name for entry in islice(scan, left + 1)]
        self._limits.check_entries(self._entries + len(names))
        return sorted((os.fsencode(name), name) for name in names)

    def _entry(
        self, parent: int, name: str, where: str, mode: int, depth: int
    ) -> Generator[tuple[CID, bytes], None, Subtree | None]:
        """The blocks of one entry of an open folder, or None when it is left out."""
        if stat.S_ISLNK(mode):
            if self._symlinks == "refuse":
                raise ContentError(f"{where} is a symlink")
            if self._symlinks == "skip":
                return None
            with _read_errors(where):
                target = os.readlink(os.fsencode(name), dir_fd=parent)
            if self._symlinks == "inside" and not stays_inside(os.fsdecode(target), depth - 1):
                return None
            return (yield from symlink_blocks(target))
        if stat.S_ISDIR(mode):
            with _read_errors(where):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                folder = os.open(name, flags, dir_fd=parent)
            return (yield from self._folder(folder, where, depth + 1, {}))
        if stat.S_ISREG(mode):
            # O_NONBLOCK: opening a pipe that has replaced the file would wait
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with _read_errors(where):
                file = os.open(name, flags, dir_fd=parent)
            try:
                found = os.fstat(file)
                # a sparse one costs time only when read
                self._limits.check_bytes(self._size + found.st_size)
                program = self._programs and found.st_mode & stat.S_IXUSR
                chunks, mode = self._chunks(file, where), PROGRAM if program else 0
                return (yield from file_blocks(chunks, self._profile, mode=mode))
            finally:
                os.close(file)
        return None

    def _chunks(self, file: int, where: str) -> Iterator[bytes]:
        size = self._profile.chunk
        while True:
            with _read_errors(where):
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
            raise ContentError(f"the name of {where!r} is not UTF-8") from None
        if len(os.fsencode(where)) > self._limits.path:
            raise ContentTooLarge(f"a path has more than {self._limits.path} bytes: {_shorten(where)}")


def _shorten(path: str) -> str:
    return repr(path) if len(path) <= 100 else f"{path[:100]!r}..."


@contextmanager
def _read_errors(where: str) -> Iterator[None]:
    """Raises ContentError when the system refuses to read."""
    try:
        yield
    except OSError as error:
        raise ContentError(f"cannot read {where}: {error.strerror or error}") from None
