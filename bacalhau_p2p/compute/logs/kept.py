"""What executions without a result wrote: kept for a while for their requesters, within limits."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from bacalhau_p2p.compute.logs.files import NAMES, SKIPPED
from bacalhau_p2p.model.base import ExecutionID, PeerID, UnixSeconds
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

KEEP_FOR = 24 * 3600.0
"""Seconds for which the output of an execution without a result is kept."""
MAX_KEPT_STREAM = 1024 * 1024
"""Bytes of each stream that are kept: the last ones."""
MAX_KEPT = 2_000
"""Executions whose output is kept, of all requesters."""
MAX_KEPT_BYTES = 256 * 1024 * 1024
"""Bytes that are kept, of all requesters. Who has most of them loses its oldest."""
SHARE_OF_DISK = 8
"""One in so many bytes that are free may be kept of a stream, and two of all: the node needs the disk."""
EXPIRY_INTERVAL = 600.0
"""Seconds between two looks at what has expired."""

_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_Key = tuple[PeerID, ExecutionID]


@dataclass(frozen=True, slots=True)
class _Kept:
    since: UnixSeconds
    size: int


class KeptLogs:
    """A folder with one folder for each requester, and in it one for each execution."""

    def __init__(self, folder: Path, clock: Callable[[], UnixSeconds]) -> None:
        self._folder = folder
        self._clock = clock
        self._kept: dict[_Key, _Kept] = {}
        """The oldest first."""
        self._load()

    def folder_of(self, requester: PeerID, execution_id: ExecutionID) -> Path | None:
        """Where the streams of an execution of this requester are, if they were kept."""
        return self._path(requester, execution_id) if (requester, execution_id) in self._kept else None

    async def keep(self, requester: PeerID, execution_id: ExecutionID, results: Path) -> None:
        """Take the streams out of a results folder that is about to be removed. Empty ones, too: that a run
        wrote nothing is an answer. Never raises an Exception."""
        if not (_NAME.fullmatch(requester) and _NAME.fullmatch(execution_id)) or not _has_output(results):
            return
        try:
            size = await trio.to_thread.run_sync(self._take, self._path(requester, execution_id), results)
        except OSError as error:
            log.warning("log_not_kept", execution=execution_id, reason=str(error))
            return
        if size is not None:
            self._kept[requester, execution_id] = _Kept(self._clock(), size)
            await self.prune()

    async def expire(self) -> None:
        """Remove what has expired, until cancelled."""
        while True:
            await self.prune()
            await trio.sleep(EXPIRY_INTERVAL)

    async def prune(self) -> None:
        """Remove what has expired, and what is too much."""
        if surplus := self._take_surplus():
            await trio.to_thread.run_sync(self._remove, surplus)

    def _take_surplus(self) -> list[_Key]:
        """Forget what has expired, and what is too much, which is to be removed. Not in a thread: several may
        remove at the same time, and others are kept meanwhile."""
        expired = self._clock() - KEEP_FOR
        surplus = [key for key, kept in self._kept.items() if kept.since < expired]
        for key in surplus:
            del self._kept[key]
        sizes: Counter[PeerID] = Counter()
        for (requester, _), kept in self._kept.items():
            sizes[requester] += kept.size
        most_bytes = min(MAX_KEPT_BYTES, 2 * (self._free() + sizes.total()) // SHARE_OF_DISK)
        counts = Counter(requester for requester, _ in self._kept)
        while len(self._kept) > MAX_KEPT or sizes.total() > most_bytes:
            measure = sizes if sizes.total() > most_bytes else counts
            most = max(measure, key=lambda requester: measure[requester])
            oldest = next(key for key in self._kept if key[0] == most)
            sizes[most] -= self._kept.pop(oldest).size
            counts[most] -= 1
            surplus.append(oldest)
        return surplus

    def _free(self) -> int:
        """Bytes that are free on the disk."""
        disk = os.statvfs(next(each for each in (self._folder, *self._folder.parents) if each.exists()))
        return disk.f_bavail * disk.f_frsize

    def _take(self, target: Path, results: Path) -> int | None:
        """The bytes that were taken; None if there are no streams."""
        taken: int | None = None
        most = min(MAX_KEPT_STREAM, (self._free() + _size_of_output(results)) // SHARE_OF_DISK)
        for name in NAMES.values():
            source = results / name
            try:
                found = source.lstat()
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(found.st_mode):
                continue
            target.mkdir(parents=True, exist_ok=True, mode=0o700)
            taken = (taken or 0) + min(found.st_size, most)
            if not found.st_size:
                continue
            skipped = found.st_size - most
            if skipped <= 0:
                source.rename(target / name)
            else:
                with source.open("rb") as stream:
                    stream.seek(skipped)
                    end = stream.read(most)
                source.unlink()  # it may have filled the disk
                (target / name).write_bytes(end)
                (target / (name + SKIPPED)).write_text(str(skipped))
        return taken

    def _remove(self, keys: Sequence[_Key]) -> None:
        for key in keys:
            path = self._path(*key)
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):
                path.parent.rmdir()  # if it was the last one

    def _path(self, requester: PeerID, execution_id: ExecutionID) -> Path:
        return self._folder / requester / execution_id

    def _load(self) -> None:
        """Find what earlier processes kept."""
        found: list[tuple[float, _Key, int]] = []
        for folder in self._folder.glob("*/*"):
            with suppress(OSError):
                size = sum(each.stat().st_size for each in os.scandir(folder))
                key = PeerID(folder.parent.name), ExecutionID(folder.name)
                found.append((folder.stat().st_mtime, key, size))
        for since, key, size in sorted(found):
            self._kept[key] = _Kept(since, size)


def _size_of_output(results: Path) -> int:
    """Bytes that are free once the streams are removed."""
    size = 0
    for name in NAMES.values():
        with suppress(FileNotFoundError):
            size += (results / name).lstat().st_size
    return size


def _has_output(results: Path) -> bool:
    """Most executions that leave no result never ran: then no thread is needed."""
    return any(os.path.lexists(results / name) for name in NAMES.values())
