"""Removes the folders of executions, whatever their jobs have done to them."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import trio

from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.removal import remove_tree

log = get_logger(__name__)

MAX_ENTRIES_INLINE = 32
"""Entries, at any depth, up to which a folder is removed without a thread: that is faster."""
MAX_FILE_INLINE = 64 * 1024
"""Bytes up to which a file is removed without a thread. The file system may take long for a larger one."""


async def remove_folder(folder: Path) -> None:
    """Remove a folder and everything in it, if it exists. What cannot be removed is logged."""
    try:
        gone = _remove_few(os.fspath(folder), MAX_ENTRIES_INLINE) is not None
    except OSError:
        gone = False
    if not gone:
        await trio.to_thread.run_sync(remove_large_folder, folder)


def remove_large_folder(folder: Path) -> None:
    """As `remove_folder`, but blocking."""
    try:
        remove_tree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("folder_left_behind", folder=str(folder), reason=str(error))


def _remove_few(folder: str, left: int) -> int | None:
    """Remove a folder of at most `left` entries, and return how many more it could have had. None if it has
    more entries, or a large file; a part of it may be removed then. Raises OSError."""
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
        elif entry.stat(follow_symlinks=False).st_size > MAX_FILE_INLINE:
            return None
        else:
            os.unlink(entry.path)  # noqa: PTH108 - a path object a file costs more than this
    os.rmdir(folder)  # noqa: PTH106
    return left
