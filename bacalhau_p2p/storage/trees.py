"""Files and folders of files as a whole: links them, measures them, makes them readable."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

MAX_DEPTH = 128
"""Names in a path below the folder of an input; deeper ones are refused."""


def link_tree(source: Path, target: Path) -> None:
    """Hard-link a file, or every file of a folder; copy where the file system has no hard links.

    Symlinks are recreated as they are. Raises OSError; FileNotFoundError when `source` does not exist.
    """
    pending = [(source, target)]
    while pending:
        old, new = pending.pop()
        if old.is_symlink():
            new.symlink_to(old.readlink())
        elif old.is_dir():
            new.mkdir(mode=0o755)
            pending += [(entry, new / entry.name) for entry in old.iterdir()]
        else:
            _link_file(old, new)


def _link_file(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        shutil.copyfile(source, target)
        shutil.copymode(source, target)


def bytes_below(path: Path, max_entries: int, checkpoint: Callable[[], None] = lambda: None) -> int | None:
    """Bytes of a file, or of all files in a folder; None of a folder with more than `max_entries`.

    Symlinks are not followed. `checkpoint` is called for each folder, and may raise to stop. Blocks. Raises
    OSError.
    """
    if not path.is_dir():
        return path.stat().st_size
    total, counted, pending = 0, 0, [os.fspath(path)]
    while pending:
        checkpoint()
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                counted += 1
                if counted > max_entries:
                    return None
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def make_readable(path: Path) -> None:
    """Let everybody read a file, or a folder with all that is in it, and enter its folders.

    What its owner may execute, everybody may. Symlinks are not followed. Blocks. Raises OSError.
    """
    pending = [path]
    while pending:
        path = pending.pop()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            path.chmod(stat.S_IMODE(mode) | 0o755)
            pending.extend(path.iterdir())
        elif stat.S_ISREG(mode):
            path.chmod(stat.S_IMODE(mode) | (0o555 if mode & stat.S_IXUSR else 0o444))
