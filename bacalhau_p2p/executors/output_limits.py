"""What a run may leave behind: bytes, files and folders, and how deep these are nested.

All are counted by what adding them to the block store costs: bytes that were never written (a sparse file)
are hashed like others. So a run that is over a limit is stopped, and its results are not added.

What merely cannot be part of a result costs nothing but itself: after the run it is removed and named.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.results import LeftOut, write_failed
from bacalhau_p2p.ipfs.files.symlinks import stays_inside
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS
from bacalhau_p2p.runtime.removal import remove_tree

ENTRIES_LIMIT = 100_000
"""Files and folders that one run may leave."""
DEPTH_LIMIT = 200
"""How deep its folders may be nested."""
RESULT_DEPTH = DEFAULT_LIMITS.folder_depth - 2
"""How deep folders of a result are nested below that of a result path; deeper ones are left out."""
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


@dataclass(frozen=True, slots=True)
class Outputs:
    """The folders of this machine that a run may write: result paths by their paths inside the job, and
    others that do not become part of the result."""

    results: Mapping[str, Path]
    others: Sequence[Path] = ()

    @property
    def folders(self) -> list[Path]:
        return [*self.results.values(), *self.others]


def check_outputs(
    outputs: Outputs, limits: OutputLimits, *, streams: int = 0, take: bool = False
) -> Sequence[LeftOut]:
    """Count everything below these folders, and `streams`: bytes of output that are elsewhere.

    `take`, once the run has ended: make it all this process's, to read and to remove, whatever user the job
    was and whatever modes it set. Set-uid bits are cleared. What cannot be part of a result is removed and
    returned: pipes, sockets and devices, names that are not UTF-8, links that lead out of the results, and
    what is nested too deep. A link that is absolute inside the job becomes one that is relative.
    Blocks as reading these folders does. Raises TooMuchOutput; ExecutorError when they cannot be read.
    """
    count = _Count(outputs, limits, take)
    count.add_bytes(streams)
    try:
        for folder in outputs.folders:
            count.add_folder(folder, None, (folder.name,))
    except OSError as error:
        raise write_failed(error) from error
    return count.left_out


async def take_outputs(outputs: Outputs, limits: OutputLimits, *, streams: int) -> Sequence[LeftOut]:
    """Check the outputs of a run that has ended, and make them this process's; what was left out of the
    result. Raises as `check_outputs`."""
    return await _check(outputs, limits, streams, take=True)


async def watch_outputs(outputs: Outputs, limits: OutputLimits, streams: Callable[[], int]) -> None:
    """Check outputs while they are written; never returns. Raises as `check_outputs`."""
    pause = WATCH_INTERVAL
    while True:
        await trio.sleep(pause)
        began = trio.current_time()
        await _check(outputs, limits, streams(), take=False)
        pause = max(WATCH_INTERVAL, (trio.current_time() - began) / WATCH_SHARE)


async def _check(outputs: Outputs, limits: OutputLimits, streams: int, *, take: bool) -> Sequence[LeftOut]:
    if not take or _are_few(outputs.folders):
        few = OutputLimits(limits.size, min(limits.entries, _INLINE_ENTRIES), limits.depth)
        try:
            return check_outputs(outputs, few, streams=streams, take=take)
        except TooMuchOutput:
            pass
    return await trio.to_thread.run_sync(lambda: check_outputs(outputs, limits, streams=streams, take=take))


def _are_few(folders: Iterable[Path]) -> bool:
    """Whether there are no folders in them, and few entries: such are taken without a thread."""
    entries = 0
    try:
        for folder in folders:
            with os.scandir(folder) as found:
                for entry in found:
                    entries += 1
                    if entries > _INLINE_ENTRIES or entry.is_dir(follow_symlinks=False):
                        return False
    except OSError:
        return False
    return True


def check_size(size: int, limits: OutputLimits) -> None:
    """Raises TooMuchOutput for more bytes than the limit."""
    if size > limits.size:
        raise TooMuchOutput(
            f"the job's output takes more than the {limits.size} bytes that it reserved (Resources.Disk)"
        )


class _Count:
    """What was found so far."""

    def __init__(self, outputs: Outputs, limits: OutputLimits, take: bool) -> None:
        self._names = {path: folder.name for path, folder in outputs.results.items()}
        self._limits = limits
        self._take = take
        self._size = 0
        self._entries = 0
        self.left_out: list[LeftOut] = []

    def add_bytes(self, size: int) -> None:
        self._size += size
        check_size(self._size, self._limits)

    def add_folder(self, folder: Path | str, parent: int | None, path: tuple[str, ...]) -> None:
        """`folder` is below the descriptor `parent`; `path` leads to it in the results. Recursive: as deep as
        the limit."""
        if len(path) > self._limits.depth + 1:
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
                if self._take:  # what is removed must not disturb the listing
                    for entry in list(islice(found, self._limits.entries + 1)):
                        self._add(entry, fd, path)
                else:
                    for entry in found:
                        self._add(entry, fd, path)
        finally:
            os.close(fd)

    def _add(self, entry: os.DirEntry[str], parent: int, above: tuple[str, ...]) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise TooMuchOutput(f"the job's output has more than {self._limits.entries} files and folders")
        try:
            found = os.stat(entry.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        path = (*above, entry.name)
        self.add_bytes(ENTRY_SIZE + (found.st_size if stat.S_ISREG(found.st_mode) else 0))
        if self._take and (reason := self._flaw(path, found, parent)):
            remove_tree(entry.name, dir_fd=parent)
            self.left_out.append(LeftOut("/".join(path), reason))
        elif stat.S_ISDIR(found.st_mode):
            self.add_folder(entry.name, parent, path)
        elif self._take:
            is_link = stat.S_ISLNK(found.st_mode)
            _own(entry.name, parent, found, 0 if is_link else stat.S_IRUSR | stat.S_IWUSR)

    def _flaw(self, path: tuple[str, ...], found: os.stat_result, parent: int) -> str:
        """Why this cannot be part of a result; nothing if it can."""
        name = os.fsencode(path[-1])
        if not _is_utf8(name):
            return "its name is not UTF-8"
        if len(os.fsencode("/".join(path))) > DEFAULT_LIMITS.path:
            return f"its path has more than {DEFAULT_LIMITS.path} bytes"
        if stat.S_ISDIR(found.st_mode):
            return f"it is nested more than {RESULT_DEPTH} deep" if len(path) - 1 > RESULT_DEPTH else ""
        if stat.S_ISLNK(found.st_mode):
            return self._flaw_of_link(path, parent)
        return "" if stat.S_ISREG(found.st_mode) else "it is a pipe, a socket or a device"

    def _flaw_of_link(self, path: tuple[str, ...], parent: int) -> str:
        target = os.readlink(os.fsencode(path[-1]), dir_fd=parent)
        if not _is_utf8(target):
            return "it is a link whose target is not UTF-8"
        text = target.decode()
        if text.startswith("/") and (inside := self._inside_results(text, len(path) - 1)):
            os.unlink(path[-1], dir_fd=parent)
            os.symlink(inside, path[-1], dir_fd=parent)
            return ""
        if stays_inside(text, len(path) - 1):
            return ""
        return f"it is a link that leads out of the results: {text}"

    def _inside_results(self, target: str, depth: int) -> str:
        """A path inside the job that leads into one of its result paths, as seen from a link that is `depth`
        folders below the results folder; nothing for any other."""
        wanted = posixpath.normpath(target)
        for path, name in self._names.items():
            if wanted == path or wanted.startswith(path + "/"):
                return "../" * depth + name + wanted[len(path) :]
        return ""


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _own(name: Path | str, parent: int | None, found: os.stat_result, needed: int) -> None:
    """Make this file or folder this process's, with at least these bits in its mode; 0: it has no mode."""
    if found.st_uid != os.geteuid() and os.geteuid() == 0:
        os.chown(name, 0, 0, dir_fd=parent, follow_symlinks=False)
    mode = stat.S_IMODE(found.st_mode)
    wanted = (mode & 0o777) | needed
    if needed and wanted != mode:
        os.chmod(name, wanted, dir_fd=parent)
