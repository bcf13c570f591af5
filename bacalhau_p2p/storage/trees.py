"""Links a file or a folder of files as a whole."""

from __future__ import annotations

import errno
import shutil
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
