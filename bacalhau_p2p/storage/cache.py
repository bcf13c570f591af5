"""Inputs that were fetched once, kept for the next job.

    <folder>/entries/<hash of the key>/data         the file or folder
    <folder>/entries/<hash of the key>/note.json    what must be known to tell whether it is still right
    <folder>/tmp/                                   entries that are being made or removed

A job gets hard links: nothing is copied, an entry may go while a job still reads it, and the kernel
counts who uses what. An entry is made under `tmp/` and renamed, so that a process killed at any
moment leaves whole entries only. Inputs are read-only for jobs, which is what makes sharing safe.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bacalhau_p2p.storage.files import remove_tree

_DATA, _NOTE = "data", "note.json"


@dataclass(frozen=True, slots=True)
class Cached:
    """An entry: its note is whatever its maker wanted to know again."""

    key: str
    note: Mapping[str, str]
    size: int
    """Bytes of its files."""


class InputCache:
    """The least recently used entries go when there are more than `budget` bytes.

    Every method blocks; all may be called from any thread.
    """

    def __init__(self, folder: Path, *, budget: int) -> None:
        """Use `folder`, made when it is first needed; 0 bytes keep nothing."""
        self._entries = folder / "entries"
        self._temporary = folder / "tmp"
        self._budget = budget
        self._mutex = threading.Lock()
        self._serial = itertools.count()
        self._sizes: dict[str, int] | None = None
        """Bytes by entry, the least recently used first."""

    def find(self, key: str) -> Cached | None:
        """The entry of this key, if there is one; nobody else's use of it is disturbed."""
        name = _name(key)
        with self._mutex:
            if name not in self._known():
                return None
            try:
                kept = json.loads((self._entries / name / _NOTE).read_text())
                return Cached(key, kept["note"], kept.get("bytes", kept["size"]))
            except (OSError, ValueError, KeyError):
                self._remove(name)
                return None

    def lend(self, key: str, target: Path) -> bool:
        """Link what the entry holds to `target`, which must not exist; False when it is gone."""
        name = _name(key)
        with self._mutex:
            sizes = self._known()
            if name not in sizes:
                return False
            try:
                link_tree(self._entries / name / _DATA, target)
            except FileNotFoundError:
                remove_tree(target)
                self._remove(name)
                return False
            sizes[name] = sizes.pop(name)
            os.utime(self._entries / name)
        return True

    def keep(self, key: str, source: Path, note: Mapping[str, str]) -> bool:
        """Make an entry of the file or folder at `source`, by links; False when it does not fit.

        Raises OSError.
        """
        size, content = _size(source), _content(source)
        if size > self._budget:
            return False
        name = _name(key)
        with self._mutex:
            self._known()
            place = self._temporary / str(next(self._serial))
            place.mkdir(mode=0o700)
            try:
                link_tree(source, place / _DATA)
                kept = {"key": key, "size": size, "bytes": content, "note": dict(note)}
                (place / _NOTE).write_text(json.dumps(kept))
                self._remove(name)
                place.rename(self._entries / name)
            except OSError:
                remove_tree(place)
                raise
            sizes = self._known()
            sizes[name] = size
            while sum(sizes.values()) > self._budget:
                self._remove(next(iter(sizes)))
        return True

    def forget(self, key: str) -> None:
        """Remove an entry; one that is not there is no error."""
        with self._mutex:
            self._known()
            self._remove(_name(key))

    def _known(self) -> dict[str, int]:
        if self._sizes is not None:
            return self._sizes
        remove_tree(self._temporary)
        self._temporary.mkdir(parents=True, mode=0o700)
        self._entries.mkdir(parents=True, exist_ok=True, mode=0o700)
        found: list[tuple[float, str, int]] = []
        for entry in self._entries.iterdir():
            try:
                size = int(json.loads((entry / _NOTE).read_text())["size"])
                found.append((entry.stat().st_mtime, entry.name, size))
            except (OSError, ValueError, KeyError, TypeError):
                remove_tree(entry)
        self._sizes = {name: size for _, name, size in sorted(found)}
        return self._sizes

    def _remove(self, name: str) -> None:
        """Out of the way in one step, then removed."""
        assert self._sizes is not None
        self._sizes.pop(name, None)
        gone = self._temporary / str(next(self._serial))
        try:
            (self._entries / name).rename(gone)
        except FileNotFoundError:
            return
        remove_tree(gone)


def link_tree(source: Path, target: Path) -> None:
    """A second name for a file, or a folder of such names; a copy where the file system has no links.

    Symlinks are made again as they are. Raises OSError; FileNotFoundError when `source` is not there.
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


def _size(path: Path) -> int:
    """Bytes on disk, at least one block for each name."""
    if path.is_dir() and not path.is_symlink():
        return 4096 + sum(_size(entry) for entry in path.iterdir())
    return max(4096, path.lstat().st_size)


def _content(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(_content(entry) for entry in path.iterdir())
    return 0 if path.is_symlink() else path.stat().st_size


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
