"""A DAG to files on disk, such that no DAG can write anywhere else.

All is written into a fresh folder beside the target, through directory descriptors, with names
that were checked and with files that must not exist yet; then the whole is renamed into place. A
failure or a cancellation leaves nothing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bacalhau_p2p.content.cid import CID
from bacalhau_p2p.content.dag import (
    BlockSource,
    File,
    Folder,
    Node,
    Shard,
    Survey,
    Symlink,
    decode,
    folder_entries,
    missing_block,
    survey,
)
from bacalhau_p2p.content.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.errors import ContentError, ContentNotFound, InvalidContent

Existing = Literal["refuse", "merge", "overwrite"]
"""What to do when the target exists: raise; put the entries into that folder, in the place of files
of the same name; or put the content in its place."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT, _REPLACED = "content", "replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written: bytes of files, number of entries, and the symlinks that were left out."""

    bytes: int
    entries: int
    skipped: tuple[str, ...] = ()


def export(
    root: CID,
    target: Path,
    source: BlockSource,
    *,
    limits: Limits = DEFAULT_LIMITS,
    symlinks: Literal["skip", "keep"] = "skip",
    existing: Existing = "refuse",
    checkpoint: Callable[[], None] = lambda: None,
    sums: Survey | None = None,
) -> Exported:
    """Write the file or folder behind `root` to `target`, whose parent folder must exist.

    Files get mode 0644 and folders 0755, less the umask. With `symlinks="keep"` those that cannot
    lead out of the folder are written; the others are left out and reported, as all are by default.
    `checkpoint` is called before each entry and may raise to cancel. `sums` spares a walk: what
    `survey` gave for this root under these limits.
    Raises ContentNotFound when a block is not in `source`, InvalidContent, ContentTooLarge, and
    ContentError when the target exists or cannot be written.
    """
    if not (sums or survey(root, source, limits, missing_limit=1)).complete:
        raise ContentNotFound(f"{root} is not complete in the store")
    target = Path(os.path.abspath(target))  # noqa: PTH100 - resolve() would follow a symlink at the target
    with _writing(target):
        parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if existing == "refuse" and _kind(parent, target.name) is not None:
            raise ContentError(f"{target} exists already")
        temporary = f".{target.name[:100]}.{secrets.token_hex(8)}"
        with _writing(target):
            os.mkdir(temporary, 0o700, dir_fd=parent)
        try:
            with _writing(target), _opened(temporary, parent) as scratch:
                writer = _Writer(source, limits, symlinks == "keep", checkpoint)
                writer.entry(root, scratch, _ROOT, ())
                _install(scratch, parent, target.name, existing)
        finally:
            shutil.rmtree(temporary, ignore_errors=True, dir_fd=parent)
    finally:
        os.close(parent)
    return Exported(bytes=writer.bytes, entries=writer.entries, skipped=tuple(writer.skipped))


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


class _Writer:
    def __init__(
        self, source: BlockSource, limits: Limits, keep_symlinks: bool, checkpoint: Callable[[], None]
    ) -> None:
        self._source = source
        self._limits = limits
        self._keep_symlinks = keep_symlinks
        self._checkpoint = checkpoint
        self.bytes = 0
        self.entries = 0
        self.skipped: list[str] = []

    def entry(self, cid: CID, parent: int, name: str, where: tuple[str, ...]) -> None:
        """Write what `cid` is as `name` in the open folder `parent`; `where` is its path for messages."""
        self._checkpoint()
        node = self._load(cid)
        if isinstance(node, Symlink):
            if self._keep_symlinks and where and stays_inside(node.target, len(where) - 1):
                os.symlink(node.target, name, dir_fd=parent)
            else:
                self.skipped.append("/".join(where))
        elif isinstance(node, File):
            file = os.open(name, _NEW_FILE, 0o644, dir_fd=parent)
            try:
                self._file(node, file)
            finally:
                os.close(file)
        else:
            self._folder(cid, node, parent, name, where)

    def _folder(self, cid: CID, node: Folder | Shard, parent: int, name: str, where: tuple[str, ...]) -> None:
        os.mkdir(name, 0o755, dir_fd=parent)
        with _opened(name, parent) as folder:
            for entry in folder_entries(cid, node, self._load):
                self.entries += 1
                self.entry(entry.cid, folder, entry.name, (*where, entry.name))

    def _file(self, node: File, file: int) -> None:
        self._write(file, node.data)
        for part in node.parts:
            below = self._load(part.cid)
            if not isinstance(below, File) or below.size != part.size:
                raise InvalidContent(f"block {part.cid} is not the part of a file that it was said to be")
            self._file(below, file)

    def _write(self, file: int, data: bytes) -> None:
        self.bytes += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]

    def _load(self, cid: CID) -> Node:
        block = self._source.get(cid)
        if block is None:
            missing_block(cid)
        return decode(cid, block, self._limits)


# --- putting it in place --------------------------------------------------------------------


def _install(scratch: int, parent: int, name: str, existing: Existing) -> None:
    """Move what was written from the scratch folder to its name in the parent folder."""
    fresh = _kind(scratch, _ROOT)
    if fresh is None:
        raise ContentError("the content is a symlink, which is not written")
    present = _kind(parent, name)
    if existing == "refuse":
        if fresh == stat.S_IFREG:
            os.link(_ROOT, name, src_dir_fd=scratch, dst_dir_fd=parent, follow_symlinks=False)
        else:  # on a folder that is not empty, and on anything else, the rename fails
            os.rename(_ROOT, name, src_dir_fd=scratch, dst_dir_fd=parent)
    elif existing == "merge" and present is not None:
        _merge(scratch, _ROOT, parent, name, (name,))
    else:
        if present is not None:
            os.rename(name, _REPLACED, src_dir_fd=parent, dst_dir_fd=scratch)
        try:
            os.rename(_ROOT, name, src_dir_fd=scratch, dst_dir_fd=parent)
        except OSError:
            if present is not None:
                os.rename(_REPLACED, name, src_dir_fd=scratch, dst_dir_fd=parent)
            raise


def _merge(source: int, name: str, target: int, target_name: str, where: tuple[str, ...]) -> None:
    fresh, present = _kind(source, name), _kind(target, target_name)
    if fresh == stat.S_IFDIR and present == stat.S_IFDIR:
        with _opened(name, source) as inner, _opened(target_name, target) as outer:
            for entry in os.listdir(inner):  # noqa: PTH208 - pathlib has no descriptors
                _merge(inner, entry, outer, entry, (*where, entry))
    elif present is not None and stat.S_IFDIR in (fresh, present):
        raise ContentError(f"{'/'.join(where)} cannot be merged: a folder and a file have the same name")
    else:
        os.rename(name, target_name, src_dir_fd=source, dst_dir_fd=target)


def _kind(folder: int, name: str) -> int | None:
    """The file type of an entry (S_IFDIR, ...), a symlink not followed; None when there is none."""
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


@contextmanager
def _opened(name: str, parent: int) -> Iterator[int]:
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        yield folder
    finally:
        os.close(folder)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turns the system's refusal to write into a ContentError."""
    try:
        yield
    except FileExistsError:
        raise ContentError(f"{target} exists already") from None
    except OSError as error:
        raise ContentError(f"{target} cannot be written: {error.strerror or error}") from None
