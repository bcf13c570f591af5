"""What a run may leave behind: bytes, files and folders, and how deep these are nested.

All are counted by what adding them to the block store costs: bytes that were never written (a sparse file)
are hashed like others. So a run that is over a limit is stopped, and its results are not added.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.results import write_failed

ENTRIES_LIMIT = 100_000
"""Files and folders that one run may leave."""
DEPTH_LIMIT = 64
"""How deep its folders may be nested."""
ENTRY_SIZE = 1024
"""Bytes that each file or folder counts, beside its content."""
UNRESERVED_SIZE = 10 * 1024**3
"""Bytes for a job that reserved no `Disk`."""
WATCH_INTERVAL = 0.5
"""Seconds between two looks at what a run has written."""
WATCH_SHARE = 0.1
"""Share of the time that looking may take: more files are looked at less often."""
_INLINE_ENTRIES = 64
"""Entries up to which counting them without a thread is faster."""


class TooMuchOutput(ExecutorError):
    """The results of a run are over a limit. Permanent: the limits are the same on every node."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """`size` in bytes, with ENTRY_SIZE for each entry."""

    size: int = UNRESERVED_SIZE
    entries: int = ENTRIES_LIMIT
    depth: int = DEPTH_LIMIT

    @classmethod
    def of_disk(cls, disk: int) -> OutputLimits:
        """Those of a job that reserved this `Disk`, in bytes; 0 is none."""
        return cls(size=disk or UNRESERVED_SIZE)


def check_outputs(
    folders: Iterable[Path], limits: OutputLimits, *, streams: int = 0, take: bool = False
) -> None:
    """Count everything below these folders, and `streams`: bytes of output that are elsewhere.

    `take`, once the run has ended: make it all this process's, to read and to remove, whatever user the job
    was and whatever modes it set. Set-uid bits are cleared; pipes, sockets and devices, which hold no data
    and would block a reader, are removed.
    Blocks as reading these folders does. Raises TooMuchOutput; ExecutorError when they cannot be read.
    """
    count = _Count(limits, take)
    count.add_bytes(streams)
    try:
        for folder in folders:
            count.add_folder(folder, None, depth=0)
    except OSError as error:
        raise write_failed(error) from error


async def take_outputs(folders: Iterable[Path], limits: OutputLimits, *, streams: int) -> None:
    """Check the outputs of a run that has ended, and make them this process's. Raises as `check_outputs`."""
    await _check(folders, limits, streams, take=True)


async def watch_outputs(folders: Iterable[Path], limits: OutputLimits, streams: Callable[[], int]) -> None:
    """Check outputs while they are written; never returns. Raises as `check_outputs`."""
    pause = WATCH_INTERVAL
    while True:
        await trio.sleep(pause)
        began = trio.current_time()
        await _check(folders, limits, streams(), take=False)
        pause = max(WATCH_INTERVAL, (trio.current_time() - began) / WATCH_SHARE)


async def _check(folders: Iterable[Path], limits: OutputLimits, streams: int, *, take: bool) -> None:
    few = OutputLimits(limits.size, min(limits.entries, _INLINE_ENTRIES), limits.depth)
    try:
        check_outputs(folders, few, streams=streams, take=take)
    except TooMuchOutput:
        await trio.to_thread.run_sync(lambda: check_outputs(folders, limits, streams=streams, take=take))


class _Count:
    """What was found so far."""

    def __init__(self, limits: OutputLimits, take: bool) -> None:
        self._limits = limits
        self._take = take
        self._size = 0
        self._entries = 0

    def add_bytes(self, size: int) -> None:
        self._size += size
        if self._size > self._limits.size:
            raise TooMuchOutput(
                f"the job's output takes more than the {self._limits.size} bytes that it reserved"
                " (Resources.Disk)"
            )

    def add_folder(self, folder: Path | str, parent: int | None, *, depth: int) -> None:
        """`folder` is below the descriptor `parent`. Recursive: as deep as the limit."""
        if depth > self._limits.depth:
            raise TooMuchOutput(f"the job's output has folders nested more than {self._limits.depth} deep")
        if self._take:
            _own(folder, parent, os.stat(folder, dir_fd=parent, follow_symlinks=False), stat.S_IRWXU)
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError:
            if self._take:
                raise
            return  # the job removed it, or does not let this process read it yet
        try:
            with os.scandir(fd) as found:
                for entry in found:
                    self._add(entry, fd, depth)
        finally:
            os.close(fd)

    def _add(self, entry: os.DirEntry[str], parent: int, depth: int) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise TooMuchOutput(f"the job's output has more than {self._limits.entries} files and folders")
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        self.add_bytes(ENTRY_SIZE + (found.st_size if stat.S_ISREG(found.st_mode) else 0))
        if stat.S_ISDIR(found.st_mode):
            self.add_folder(entry.name, parent, depth=depth + 1)
        elif self._take and stat.S_ISREG(found.st_mode):
            _own(entry.name, parent, found, stat.S_IRUSR | stat.S_IWUSR)
        elif self._take and stat.S_ISLNK(found.st_mode):
            _own(entry.name, parent, found, 0)
        elif self._take:
            os.unlink(entry.name, dir_fd=parent)


def _own(name: Path | str, parent: int | None, found: os.stat_result, needed: int) -> None:
    """Make this file or folder this process's, with at least these bits in its mode; 0: it has no mode."""
    if found.st_uid != os.geteuid() and os.geteuid() == 0:
        os.chown(name, 0, 0, dir_fd=parent, follow_symlinks=False)
    mode = stat.S_IMODE(found.st_mode)
    wanted = (mode & 0o777) | needed
    if needed and wanted != mode:
        os.chmod(name, wanted, dir_fd=parent)
