"""A cache of inputs on disk.

    <folder>/entries/<hash of the key>/data         the file or folder
    <folder>/entries/<hash of the key>/note.json    key, sizes and fingerprint (called `note` there)
    <folder>/tmp/                                   entries that are being made or removed

A job gets hard links: nothing is copied, an entry may be removed while a job still reads it, and the
kernel counts the users. An entry is made under `tmp/` and then renamed, so a process killed at any moment
leaves only whole entries. Sharing is safe because inputs are read-only for jobs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.storage.trees import link_tree

_DATA, _NOTE = "data", "note.json"
_BLOCK = 4096
"""Bytes that a file or folder takes on disk at least."""


@dataclass(frozen=True, slots=True)
class CachedInput:
    """An entry of the cache."""

    key: str
    fingerprint: Mapping[str, str]
    """By which a change of the source is recognised: an ETag, a commit id."""
    size: int
    """Bytes of its files."""


class InputCache:
    """Removes the least recently used entries above `budget` bytes.

    Every method blocks; all may be called from any thread.
    """

    def __init__(self, folder: Path, *, budget: int) -> None:
        """Use `folder`, which is made when it is first needed; a budget of 0 keeps nothing."""
        self._entries = folder / "entries"
        self._temporary = folder / "tmp"
        self._budget = budget
        self._mutex = threading.Lock()
        self._serial = itertools.count()
        self._sizes: dict[str, int] | None = None
        """Bytes by entry, the least recently used first; None until the folder was read."""

    def get(self, key: str) -> CachedInput | None:
        """The entry of this key, if there is one. Does not count as a use."""
        name = _name(key)
        with self._mutex:
            if name not in self._loaded():
                return None
            try:
                stored = json.loads((self._entries / name / _NOTE).read_text())
                return CachedInput(key, stored["note"], stored.get("bytes", stored["size"]))
            except (OSError, ValueError, KeyError):
                self._remove(name)
                return None

    def link(self, key: str, target: Path) -> bool:
        """Link the entry to `target`, which must not exist; False when there is no entry."""
        name = _name(key)
        with self._mutex:
            sizes = self._loaded()
            if name not in sizes:
                return False
            try:
                link_tree(self._entries / name / _DATA, target)
            except FileNotFoundError:
                discard_tree(target)
                self._remove(name)
                return False
            sizes[name] = sizes.pop(name)
            os.utime(self._entries / name)
        return True

    def put(self, key: str, source: Path, fingerprint: Mapping[str, str]) -> bool:
        """Make an entry of the file or folder at `source`, by links; False when it does not fit.

        Raises OSError.
        """
        size, content = _disk_usage(source), _content_size(source)
        if size > self._budget:
            return False
        name = _name(key)
        with self._mutex:
            self._loaded()
            new = self._temporary / str(next(self._serial))
            new.mkdir(mode=0o700)
            try:
                link_tree(source, new / _DATA)
                stored = {"key": key, "size": size, "bytes": content, "note": dict(fingerprint)}
                (new / _NOTE).write_text(json.dumps(stored))
                self._remove(name)
                new.rename(self._entries / name)
            except OSError:
                discard_tree(new)
                raise
            sizes = self._loaded()
            sizes[name] = size
            while sum(sizes.values()) > self._budget:
                self._remove(next(iter(sizes)))
        return True

    def remove(self, key: str) -> None:
        """Remove the entry if it exists."""
        with self._mutex:
            self._loaded()
            self._remove(_name(key))

    def _loaded(self) -> dict[str, int]:
        if self._sizes is not None:
            return self._sizes
        discard_tree(self._temporary)
        self._temporary.mkdir(parents=True, mode=0o700)
        self._entries.mkdir(parents=True, exist_ok=True, mode=0o700)
        found: list[tuple[float, str, int]] = []
        for entry in self._entries.iterdir():
            try:
                size = int(json.loads((entry / _NOTE).read_text())["size"])
                found.append((entry.stat().st_mtime, entry.name, size))
            except (OSError, ValueError, KeyError, TypeError):
                discard_tree(entry)
        self._sizes = {name: size for _, name, size in sorted(found)}
        return self._sizes

    def _remove(self, name: str) -> None:
        """Rename the entry first, so that it is never seen half removed."""
        assert self._sizes is not None
        self._sizes.pop(name, None)
        removed = self._temporary / str(next(self._serial))
        try:
            (self._entries / name).rename(removed)
        except FileNotFoundError:
            return
        discard_tree(removed)


def _disk_usage(path: Path) -> int:
    """Bytes on disk, at least one block for each name."""
    if path.is_dir() and not path.is_symlink():
        return _BLOCK + sum(_disk_usage(entry) for entry in path.iterdir())
    return max(_BLOCK, path.lstat().st_size)


def _content_size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(_content_size(entry) for entry in path.iterdir())
    return 0 if path.is_symlink() else path.stat().st_size


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
