"""Removing the folders of executions, whatever the jobs made of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import trio

from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

FEW_ENTRIES = 32
"""Entries of a folder, at any depth, up to which it is removed at once: a thread would cost more."""
SMALL_FILE = 64 * 1024
"""Bytes of a file that is removed at once; the file system takes its time for a large one."""


async def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there; what cannot be removed is logged."""
    try:
        gone = _remove_few(os.fspath(folder), FEW_ENTRIES) is not None
    except OSError:
        gone = False
    if not gone:
        await trio.to_thread.run_sync(remove_large_folder, folder)


def remove_large_folder(folder: Path) -> None:
    """As `remove_folder`, for a thread or for a start."""

    def make_removable(function: Callable[..., object], path: str, error: object) -> None:
        # A job may leave folders that even their owner may not change.
        parent = Path(path).parent
        parent.chmod(0o700)
        if Path(path).is_dir() and not Path(path).is_symlink():
            Path(path).chmod(0o700)
        function(path)

    if not folder.exists():
        return
    try:
        shutil.rmtree(folder, onerror=make_removable)
    except OSError as error:
        log.warning("folder_left_behind", folder=str(folder), reason=str(error))


def _remove_few(folder: str, left: int) -> int | None:
    """Remove a folder of at most `left` entries, and say how many more it might have had; None, with a
    part of it removed, when there is more or a file is large. Raises OSError."""
    try:
        with os.scandir(folder) as found:
            entries = list(islice(found, left + 1))
    except FileNotFoundError:
        return left
    left -= len(entries)
    if left < 0:
        return None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remaining = _remove_few(entry.path, left)
            if remaining is None:
                return None
            left = remaining
        elif entry.stat(follow_symlinks=False).st_size > SMALL_FILE:
            return None
        else:
            os.unlink(entry.path)  # noqa: PTH108 - a path object a file costs more than this
    os.rmdir(folder)  # noqa: PTH106
    return left
