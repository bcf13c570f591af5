"""Files and folders of files: link and remove them whole."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a file or folder if it exists. Symlinks are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def link_tree(source: Path, target: Path) -> None:
    """Hard-link a file, or every file of a folder; copy where the file system has no hard links.

    Symlinks are recreated as they are. Raises OSError; FileNotFoundError when `source` does not exist.
    """
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        target.mkdir(mode=0o755)
        for entry in source.iterdir():
            link_tree(entry, target / entry.name)
    else:
        try:
            target.hardlink_to(source)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
            shutil.copyfile(source, target)
            shutil.copymode(source, target)
