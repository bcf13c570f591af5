"""Removes the folders of executions, whatever their jobs have done to them, and measures them."""

from __future__ import annotations

import os
import secrets
import time
from itertools import islice
from pathlib import Path

import trio

from bacalhau_p2p.model.quantities import MAX_BYTES
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.removal import remove_tree
from bacalhau_p2p.runtime.threads import Threads
from bacalhau_p2p.storage.trees import bytes_below as measure

log = get_logger(__name__)

MAX_ENTRIES_INLINE = 32
"""Entries, at any depth, up to which a folder is removed without a thread: that is faster."""
MAX_FILE_INLINE = 64 * 1024
"""Bytes up to which a file is removed without a thread. The file system may take long for a larger one."""
REMOVAL_TIMEOUT = 60.0
"""Seconds for the removal of a folder; what is left then is removed later."""
RETRY_INTERVAL = 600.0
"""Seconds between two attempts to remove what was set aside."""
MAX_MEASURED = 100_000
"""Entries up to which a folder is measured."""
MAX_A_ROUND = 1000
"""Folders that were set aside and are removed in one attempt."""
SET_ASIDE = ".removed"
"""The folder, beside those of executions, that holds what is still to be removed."""

_THREADS = Threads(4)


async def bytes_below(path: Path) -> int | None:
    """Bytes of a file, or of all files in a folder; None of one with more than MAX_MEASURED entries, or that
    changes."""

    try:
        total = await _THREADS.run(lambda: measure(path, MAX_MEASURED))
    except OSError:
        return None
    return None if total is None else min(total, MAX_BYTES)


async def remove_folder(folder: Path) -> None:
    """Remove a folder and everything in it, if it exists. Never raises an Exception: what cannot be removed
    within `REMOVAL_TIMEOUT` is set aside, and tried again by `remove_set_aside`."""
    try:
        gone = _remove_few(os.fspath(folder), MAX_ENTRIES_INLINE) is not None
    except OSError:
        gone = False
    if not gone:
        await _THREADS.run(remove_or_set_aside, folder)


def remove_or_set_aside(folder: Path) -> None:
    """As `remove_folder`, but blocking."""
    reason = _removal_fault(folder)
    if reason is not None:
        log.warning("folder_set_aside", folder=str(folder), reason=reason)
        set_aside(folder)


def set_aside(folder: Path) -> None:
    """Move a folder where no execution uses it. What cannot be moved is logged and stays."""
    place = folder.parent / SET_ASIDE
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        folder.rename(place / secrets.token_hex(8))
    except OSError as error:
        log.warning("folder_left_behind", folder=str(folder), reason=str(error))


async def remove_set_aside(parent: Path) -> None:
    """Remove what was set aside in `parent`, until cancelled: at once, and what cannot be removed now and
    then again."""
    place = parent / SET_ASIDE
    while True:
        for folder in await _THREADS.run(_names_in, place):
            reason = await _THREADS.run(_removal_fault, folder)
            if reason is not None:
                log.warning("folder_cannot_be_removed", folder=str(folder), reason=reason)
        await trio.sleep(RETRY_INTERVAL)


def _names_in(place: Path) -> list[Path]:
    try:
        return list(islice(place.iterdir(), MAX_A_ROUND))
    except OSError:
        return []


def _removal_fault(folder: Path) -> str | None:
    """Remove a folder; why that did not succeed, or None."""
    ends = time.monotonic() + REMOVAL_TIMEOUT

    def check_time() -> None:
        if time.monotonic() > ends:
            raise TimeoutError(f"not removed within {REMOVAL_TIMEOUT:g} s")

    try:
        remove_tree(folder, checkpoint=check_time)
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - whatever a job has done to its folder, the node goes on
        return f"{type(error).__name__}: {error}"
    return None


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
