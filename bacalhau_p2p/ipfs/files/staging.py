"""A hidden folder beside a target, in which content is written before it is moved into place.

A failure or a cancellation leaves nothing behind. The folder of a killed process is removed by the next
process that writes to the same target: a folder without a lock belongs to no living process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

from bacalhau_p2p.errors import ContentError, InvalidContent
from bacalhau_p2p.ipfs.files.dag_writer import CONTENT
from bacalhau_p2p.runtime.removal import discard_tree, remove_tree

Existing = Literal["refuse", "join", "merge", "overwrite"]
"""What to do when the target exists: raise; add the entries to that folder, or raise when one is there
already; merge them into that folder, replacing files with the same name; or replace it as a whole."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REPLACED = "replaced"
"""The name under which the old target is kept until the new content is in place."""
_SLOTS = 8
"""Names that the folder may have, so that leftovers are found without listing the parent."""


class StagingFolder:
    """A fresh hidden folder beside a target, as a context manager; `folder` is its descriptor and
    `path` its path.

    `install` moves what was written there as `CONTENT` to the target; without it, nothing is left.
    Raises ContentError when the target exists (see `Existing`) or the folder cannot be created.
    """

    def __init__(self, target: Path, existing: Existing) -> None:
        # resolve() would follow a symlink at the target
        self._target = Path(os.path.abspath(target))  # noqa: PTH100
        self._existing = existing
        with write_errors(self._target), ExitStack() as undo:
            self._parent = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, self._parent)
            slots = _slots(self._target.name)
            for slot in slots:
                _remove_leftover(slot, self._parent, self._target.name)
            if existing == "refuse" and _file_type(self._parent, self._target.name) is not None:
                raise ContentError(f"{self._target} already exists")
            name, self.folder = _create_folder(slots, self._parent)
            self.path = self._target.parent / name
            undo.callback(os.close, self.folder)
            # Called first, while the lock is held: the next holder may create a folder of this name.
            undo.callback(discard_tree, name, dir_fd=self._parent)
            self._undo = undo.pop_all()

    def install(self) -> None:
        """Move what was written to the target. Raises ContentError."""
        with write_errors(self._target):
            _install(self.folder, self._parent, self._target.name, self._existing)

    def close(self) -> None:
        """Remove the folder and what is left in it."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# --- the hidden folder ------------------------------------------------------------------------


def _slots(target: str) -> list[str]:
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:16]  # long names with a common start differ
    return [f".{target[:50]}.{digest}.{number}.export" for number in range(_SLOTS)]  # a letter: <= four bytes


def _create_folder(slots: Sequence[str], parent: int) -> tuple[str, int]:
    """Name and descriptor of a new, locked folder: in one of the slots if any is free."""
    for name in [*slots, *(f"{slots[0]}.{secrets.token_hex(8)}" for _ in range(3))]:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
            with suppress(FileNotFoundError):  # another process took it for a leftover
                folder = os.open(name, _FOLDER, dir_fd=parent)
                if _lock(folder) is not False and _is_at(name, parent, folder):
                    return name, folder
                os.close(folder)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _remove_leftover(name: str, parent: int, target: str) -> None:
    """Remove the folder of a process that has ended, and restore the target if that had moved it there.

    A folder is left alone when it is in use, belongs to another user or is on a file system without locks.
    """
    try:
        folder = os.open(name, _FOLDER, dir_fd=parent)
    except OSError:
        return
    with suppress(OSError), ExitStack() as undo:
        undo.callback(os.close, folder)
        own = os.fstat(folder).st_uid == os.geteuid()
        if own and _lock(folder) and _is_at(name, parent, folder):
            if _file_type(folder, _REPLACED) is not None and _file_type(parent, target) is None:
                os.rename(_REPLACED, target, src_dir_fd=folder, dst_dir_fd=parent)
            remove_tree(name, dir_fd=parent)


def _lock(folder: int) -> bool | None:
    """Lock the folder; False when another process holds the lock, None where there are no locks."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(name: str, parent: int, folder: int) -> bool:
    """Whether an open folder still has this name."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=parent, follow_symlinks=False), os.fstat(folder))
    except FileNotFoundError:
        return False


# --- moving into place ------------------------------------------------------------------------


def _install(staging: int, parent: int, name: str, existing: Existing) -> None:
    """Move what was written from the staging folder to `name` in the parent folder."""
    new = _file_type(staging, CONTENT)
    if new is None:
        raise InvalidContent("the content is only a symlink; symlinks are not written")
    old = _file_type(parent, name)
    if existing == "refuse":
        if new == stat.S_IFREG:
            os.link(CONTENT, name, src_dir_fd=staging, dst_dir_fd=parent, follow_symlinks=False)
        else:  # the rename fails if anything but an empty folder has the name by now
            os.rename(CONTENT, name, src_dir_fd=staging, dst_dir_fd=parent)
    elif existing in ("join", "merge") and old is not None:
        if existing == "join":
            _check_free(staging, CONTENT, parent, name, (name,))
        _merge(staging, CONTENT, parent, name, (name,))
    else:
        if old is not None:
            os.rename(name, _REPLACED, src_dir_fd=parent, dst_dir_fd=staging)
        try:
            os.rename(CONTENT, name, src_dir_fd=staging, dst_dir_fd=parent)
        except OSError:
            if old is not None:
                os.rename(_REPLACED, name, src_dir_fd=staging, dst_dir_fd=parent)
            raise


def _check_free(source: int, name: str, target: int, target_name: str, path: tuple[str, ...]) -> None:
    """Raises ContentError when merging would replace something."""
    new, old = _file_type(source, name), _file_type(target, target_name)
    if old is not None and (new, old) != (stat.S_IFDIR, stat.S_IFDIR):
        raise ContentError(f"{'/'.join(path)} already exists; choose another path with --output-dir")
    if old is not None:
        with _open_folder(name, source) as inner, _open_folder(target_name, target) as outer:
            for entry in os.listdir(inner):  # noqa: PTH208 - pathlib has no descriptors
                _check_free(inner, entry, outer, entry, (*path, entry))


def _merge(source: int, name: str, target: int, target_name: str, path: tuple[str, ...]) -> None:
    new, old = _file_type(source, name), _file_type(target, target_name)
    if new == stat.S_IFDIR and old == stat.S_IFDIR:
        with _open_folder(name, source) as inner, _open_folder(target_name, target) as outer:
            for entry in os.listdir(inner):  # noqa: PTH208 - pathlib has no descriptors
                _merge(inner, entry, outer, entry, (*path, entry))
    elif old is not None and stat.S_IFDIR in (new, old):
        raise ContentError(f"cannot merge {'/'.join(path)}: a folder and a file have the same name")
    else:
        os.rename(name, target_name, src_dir_fd=source, dst_dir_fd=target)


def _file_type(folder: int, name: str) -> int | None:
    """The type of an entry (S_IFDIR, ...) without following a symlink; None when there is none."""
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


@contextmanager
def _open_folder(name: str, parent: int) -> Iterator[int]:
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        yield folder
    finally:
        os.close(folder)


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Raises ContentError when the system refuses to write."""
    try:
        yield
    except FileExistsError:
        raise ContentError(f"{target} already exists") from None
    except OSError as error:
        raise ContentError(f"cannot write {target}: {error.strerror or error}") from None
