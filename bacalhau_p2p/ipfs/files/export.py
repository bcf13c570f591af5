"""A DAG to files on disk, such that no DAG can write anywhere else.

All is written into a fresh folder beside the target, through directory descriptors, with names
that were checked and with files that must not exist yet; then the whole is renamed into place. A
failure or a cancellation leaves nothing; what a killed process leaves, the next export to the same
target removes. The folder is locked for as long as its process lives, so it is known which is which.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from bacalhau_p2p.errors import ContentError
from bacalhau_p2p.ipfs.files.layout import TOP, Placing
from bacalhau_p2p.ipfs.files.layout import stays_inside as stays_inside
from bacalhau_p2p.ipfs.format.block_source import BlockSource, require_block
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.dag_stat import DagStat, require_complete
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits

Existing = Literal["refuse", "merge", "overwrite"]
"""What to do when the target exists: raise; put the entries into that folder, in the place of files
of the same name; or put the content in its place."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REPLACED = "replaced"
_SLOTS = 8
"""Names that the folder beside a target may have: of these, leftovers are found without looking around."""


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
    stat: DagStat | None = None,
) -> Exported:
    """Write the file or folder behind `root` to `target`, whose parent folder must exist.

    Files get mode 0644 and folders 0755, less the umask. With `symlinks="keep"` those that cannot
    lead out of the folder are written; the others are left out and reported, as all are by default.
    `checkpoint` is called before each block and may raise to cancel. `stat` is the complete
    `dag_stat` of this root under these limits, computed unless it is given.
    Raises ContentNotFound when a block is not in `source`, InvalidContent, ContentTooLarge, and
    ContentError when the target exists or cannot be written.
    """
    require_complete(root, source, limits, stat)
    with Scratch(target, existing) as scratch:
        placing = Placing(root, scratch.folder, limits=limits, keep_symlinks=symlinks == "keep")
        with writing(target), closing(placing):
            while (cid := placing.expected) is not None:
                checkpoint()
                placing.place(require_block(cid, source))
        scratch.install()
    return Exported(bytes=placing.bytes, entries=placing.entries, skipped=tuple(placing.skipped))


class Scratch:
    """A fresh hidden folder beside a target, for the length of a `with` block; `folder` is its descriptor.

    What is written into it as `placing.TOP` comes to the target's place with `install`; without that,
    nothing is left of it. Raises ContentError when the target exists (see `Existing`) or the folder
    cannot be made.
    """

    def __init__(self, target: Path, existing: Existing) -> None:
        # resolve() would follow a symlink at the target
        self._target = Path(os.path.abspath(target))  # noqa: PTH100
        self._existing = existing
        with writing(self._target), ExitStack() as undo:
            self._parent = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, self._parent)
            slots = _slots(self._target.name)
            for slot in slots:
                _remove_leftover(slot, self._parent, self._target.name)
            if existing == "refuse" and _kind(self._parent, self._target.name) is not None:
                raise ContentError(f"{self._target} exists already")
            name, self.folder = _make_folder(slots, self._parent)
            undo.callback(os.close, self.folder)
            # Before its lock is given back: whoever has that may make a folder of the same name.
            undo.callback(shutil.rmtree, name, ignore_errors=True, dir_fd=self._parent)
            self._undo = undo.pop_all()

    def install(self) -> None:
        """Put what was written in its place. Raises ContentError."""
        with writing(self._target):
            _install(self.folder, self._parent, self._target.name, self._existing)

    def close(self) -> None:
        """Remove the folder with all that is left in it."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# --- the folder beside the target -----------------------------------------------------------


def _slots(target: str) -> list[str]:
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:16]  # of names that begin alike, one each
    return [f".{target[:50]}.{digest}.{number}.export" for number in range(_SLOTS)]  # a letter: <= four bytes


def _make_folder(slots: Sequence[str], parent: int) -> tuple[str, int]:
    """A new folder that is locked, by its name and descriptor: one of the slots if any is free."""
    for name in [*slots, *(f"{slots[0]}.{secrets.token_hex(8)}" for _ in range(3))]:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
            with suppress(FileNotFoundError):  # another process was quick to take it for a leftover
                folder = os.open(name, _FOLDER, dir_fd=parent)
                if _lock(folder) is not False and _is_at(name, parent, folder):
                    return name, folder
                os.close(folder)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _remove_leftover(name: str, parent: int, target: str) -> None:
    """Remove the folder of a process that is gone; what it had taken from the target's place comes back.

    One that is in use, is not ours or is on a file system without locks is left alone.
    """
    try:
        folder = os.open(name, _FOLDER, dir_fd=parent)
    except OSError:
        return
    with suppress(OSError), ExitStack() as undo:
        undo.callback(os.close, folder)
        ours = os.fstat(folder).st_uid == os.geteuid()
        if ours and _lock(folder) and _is_at(name, parent, folder):
            if _kind(folder, _REPLACED) is not None and _kind(parent, target) is None:
                os.rename(_REPLACED, target, src_dir_fd=folder, dst_dir_fd=parent)
            shutil.rmtree(name, dir_fd=parent)


def _lock(folder: int) -> bool | None:
    """Whether the folder was free, and is held by this descriptor now; None where there are no locks."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(name: str, parent: int, folder: int) -> bool:
    """Whether a folder, by its descriptor, has this name still."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=parent, follow_symlinks=False), os.fstat(folder))
    except FileNotFoundError:
        return False


# --- putting it in place --------------------------------------------------------------------


def _install(scratch: int, parent: int, name: str, existing: Existing) -> None:
    """Move what was written from the scratch folder to its name in the parent folder."""
    fresh = _kind(scratch, TOP)
    if fresh is None:
        raise ContentError("the content is a symlink, which is not written")
    present = _kind(parent, name)
    if existing == "refuse":
        if fresh == stat.S_IFREG:
            os.link(TOP, name, src_dir_fd=scratch, dst_dir_fd=parent, follow_symlinks=False)
        else:  # on a folder that is not empty, and on anything else, the rename fails
            os.rename(TOP, name, src_dir_fd=scratch, dst_dir_fd=parent)
    elif existing == "merge" and present is not None:
        _merge(scratch, TOP, parent, name, (name,))
    else:
        if present is not None:
            os.rename(name, _REPLACED, src_dir_fd=parent, dst_dir_fd=scratch)
        try:
            os.rename(TOP, name, src_dir_fd=scratch, dst_dir_fd=parent)
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
def writing(target: Path) -> Iterator[None]:
    """Turns the system's refusal to write into a ContentError."""
    try:
        yield
    except FileExistsError:
        raise ContentError(f"{target} exists already") from None
    except OSError as error:
        raise ContentError(f"{target} cannot be written: {error.strerror or error}") from None
