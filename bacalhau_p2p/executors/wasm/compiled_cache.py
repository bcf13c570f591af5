"""Compiled WebAssembly modules on disk, in a folder that the nodes of one user may share.

They are native code, so a module that no such node wrote is never loaded. Each file starts with the SHA-256
of the code that follows, and an HMAC, with a secret of this folder, of that hash and of what the code was
compiled from. The process that loads the code compares the hash with the bytes that it read.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SIZE_LIMIT = 2 * 1024**3
"""Bytes of the cache, above which the least recently used modules are removed."""

_HASH = 32
HEADER = 2 * _HASH
"""Bytes before the code: its hash, and the HMAC."""

_SUFFIX = ".compiled"
_UNFINISHED = ".new"


@dataclass(frozen=True, slots=True)
class CompiledModule:
    """A compiled module; `sha256` (hex) is the hash of everything after the HEADER."""

    path: Path
    sha256: str


class CompiledCache:
    """Compiled modules by key, which names the module, the compiler and its settings."""

    def __init__(self, folder: Path, *, limit: int = SIZE_LIMIT) -> None:
        self._folder = folder
        self._limit = limit
        self._secret = b""

    def open(self) -> None:
        """Make the folder, readable for this user alone, and its secret. Raises OSError."""
        if self._secret:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        with self._locked():
            for unfinished in self._folder.glob("*" + _UNFINISHED):
                _remove_unless_locked(unfinished)  # by a node that died
            path = self._folder / "key"
            if not _is_private(path):
                path.unlink(missing_ok=True)  # a secret that others know proves nothing
                new = self._folder / (secrets.token_hex(8) + _UNFINISHED)
                fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(fd, "wb") as file:
                    file.write(secrets.token_bytes(_HASH))
                new.rename(path)
            self._secret = path.read_bytes()

    def get(self, key: str) -> CompiledModule | None:
        """The module that was compiled under this key, if a node with this folder wrote its header."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                header = file.read(HEADER)
            if hmac.compare_digest(header[_HASH:], self._seal(key, header[:_HASH])):
                os.utime(path)  # used now
                return CompiledModule(path, header[:_HASH].hex())
        except OSError:
            return None
        self.discard(key)
        return None

    @contextmanager
    def writing(self, key: str) -> Iterator[int | None]:
        """A new file for the code of this key, positioned behind the header; `put` keeps it. None while
        somebody else has one, as another node that shares the folder. Raises OSError."""
        path = self._folder / (key + _UNFINISHED)
        with self._locked():
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            mine = _lock_now(fd)
        try:
            if mine:
                os.truncate(fd, 0)  # what a node left that died
                os.lseek(fd, HEADER, os.SEEK_SET)
            yield fd if mine else None
        finally:
            if mine:
                with self._locked():
                    path.unlink(missing_ok=True)
            os.close(fd)

    def put(self, key: str, fd: int, sha256: str) -> CompiledModule:
        """Keep the code in `fd`, which has this hash, under the key. Raises OSError."""
        digest = bytes.fromhex(sha256)
        os.pwrite(fd, digest + self._seal(key, digest), 0)
        path = self._path(key)
        with self._locked():
            (self._folder / (key + _UNFINISHED)).rename(path)
        self._evict(path)
        return CompiledModule(path, sha256)

    def discard(self, key: str) -> None:
        """Remove the module; it is compiled again when needed."""
        self._path(key).unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """While files begin or end: no other node with this folder does that, meanwhile."""
        fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _path(self, key: str) -> Path:
        return self._folder / (key + _SUFFIX)

    def _seal(self, key: str, digest: bytes) -> bytes:
        return hmac.digest(self._secret, key.encode() + b"\0" + digest, "sha256")

    def _evict(self, newest: Path) -> None:
        files = []
        for path in self._folder.glob("*" + _SUFFIX):
            with suppress(FileNotFoundError):  # removed by another node
                files.append((path, path.stat()))
        total = sum(found.st_size for _, found in files)
        for path, found in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if total <= self._limit:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= found.st_size


def _lock_now(fd: int) -> bool:
    """Lock a file until it is closed, unless somebody else has. A process that dies loses its locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_unless_locked(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if _lock_now(fd):
            path.unlink()
    finally:
        os.close(fd)


def _is_private(path: Path) -> bool:
    """Whether this is a complete secret that no other user can read."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077 and found.st_size == _HASH
