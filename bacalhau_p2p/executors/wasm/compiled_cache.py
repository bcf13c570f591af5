"""Compiled WebAssembly modules on disk.

They are native code, so a module that this node did not write is never loaded. Each file starts with the
SHA-256 of the code that follows, and an HMAC, with a secret of this folder, of that hash and of what the
code was compiled from. The process that loads the code compares the hash with the bytes that it read.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
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
        for unfinished in self._folder.glob("*" + _UNFINISHED):
            unfinished.unlink()  # by a node that died
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
        """The module that was compiled under this key, if this node wrote its header."""
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
    def writing(self) -> Iterator[int]:
        """A new file for code, positioned behind the header; `put` keeps it."""
        path = self._folder / (secrets.token_hex(8) + _UNFINISHED)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.lseek(fd, HEADER, os.SEEK_SET)
            yield fd
        finally:
            os.close(fd)
            path.unlink(missing_ok=True)

    def put(self, key: str, fd: int, sha256: str) -> CompiledModule:
        """Keep the code in `fd`, which has this hash, under the key. Raises OSError."""
        digest = bytes.fromhex(sha256)
        os.pwrite(fd, digest + self._seal(key, digest), 0)
        path = self._path(key)
        Path(f"/proc/self/fd/{fd}").readlink().rename(path)
        self._evict(path)
        return CompiledModule(path, sha256)

    def discard(self, key: str) -> None:
        """Remove the module; it is compiled again when needed."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / (key + _SUFFIX)

    def _seal(self, key: str, digest: bytes) -> bytes:
        return hmac.digest(self._secret, key.encode() + b"\0" + digest, "sha256")

    def _evict(self, newest: Path) -> None:
        files = [(path, path.stat()) for path in self._folder.glob("*" + _SUFFIX)]
        total = sum(found.st_size for _, found in files)
        for path, found in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if total <= self._limit:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= found.st_size


def _is_private(path: Path) -> bool:
    """Whether this is a complete secret that no other user can read."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077 and found.st_size == _HASH
