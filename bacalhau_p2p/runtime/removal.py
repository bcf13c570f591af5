"""Removes a folder whatever its shape: without recursion, and with three descriptors at most."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_ONCE = 1000
"""Entries that are listed at a time: a folder may have millions."""


def remove_tree(
    name: str | os.PathLike[str], *, dir_fd: int | None = None, checkpoint: Callable[[], None] = lambda: None
) -> None:
    """Remove a file, or a folder with all that is in it. Symlinks are removed and not followed.

    Folders that their owner may not change are made changeable. `checkpoint` is called now and then and may
    raise to stop. Blocks. Raises FileNotFoundError when nothing has this name, and the first OSError after
    everything else was removed.
    """
    if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=dir_fd)
        return
    top = _open_changeable(name, dir_fd)
    try:
        _Removal(top, checkpoint).run()
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def discard_tree(name: str | os.PathLike[str], *, dir_fd: int | None = None) -> None:
    """As `remove_tree`, as far as it exists and the system allows it."""
    with suppress(OSError):
        remove_tree(name, dir_fd=dir_fd)


class _Removal:
    """Empties one folder. Folders further down are moved up into it before they are emptied in turn, so that
    no path gets long and the depth does not matter."""

    def __init__(self, top: int, checkpoint: Callable[[], None]) -> None:
        self._top = top
        self._checkpoint = checkpoint
        self._prefix = f".{secrets.token_hex(8)}."
        self._moved = 0
        self._stuck: set[str] = set()
        """Entries of the top folder that cannot be removed."""
        self._first_error: OSError | None = None

    def run(self) -> None:
        """Raises OSError."""
        while entries := self._entries(self._top, skip=self._stuck):
            self._checkpoint()
            for name, is_folder in entries:
                try:
                    if is_folder:
                        self._remove_folder(name)
                    else:
                        os.unlink(name, dir_fd=self._top)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._first_error = self._first_error or error
                    self._stuck.add(name)
        if self._first_error is not None:
            raise self._first_error

    def _remove_folder(self, name: str) -> None:
        """Empty and remove a folder in the top folder."""
        folder = _open_changeable(name, self._top)
        try:
            while entries := self._entries(folder):
                self._checkpoint()
                for inner, is_folder in entries:
                    if is_folder:
                        self._move_up(inner, folder)
                    else:
                        os.unlink(inner, dir_fd=folder)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=self._top)

    def _move_up(self, name: str, folder: int) -> None:
        self._moved += 1
        to = f"{self._prefix}{self._moved}"
        try:
            os.rename(name, to, src_dir_fd=folder, dst_dir_fd=self._top)
        except PermissionError:  # moving a folder changes its "..": it must be writable
            os.close(_open_changeable(name, folder))
            os.rename(name, to, src_dir_fd=folder, dst_dir_fd=self._top)

    @staticmethod
    def _entries(folder: int, skip: set[str] = frozenset()) -> list[tuple[str, bool]]:  # type: ignore[assignment]
        """Some of the entries of a folder, each with whether it is a folder itself."""
        with os.scandir(folder) as found:
            wanted = ((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
            return list(islice((each for each in wanted if each[0] not in skip), _AT_ONCE))


def _open_changeable(name: str | os.PathLike[str], parent: int | None) -> int:
    """The descriptor of a folder whose entries can be listed and removed."""
    try:
        folder = os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _FOLDER, dir_fd=parent)
    try:
        if os.fstat(folder).st_mode & 0o700 != 0o700:
            os.fchmod(folder, 0o700)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EROFS):  # the removal itself will say what is wrong
            os.close(folder)
            raise
    return folder
