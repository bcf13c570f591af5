"""A new file that is hashed, limited and counted while it is written."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.runtime.transfers import note_fetched


class HashedFile:
    """Writes a new file for the length of a `with` block. Every method blocks; none is for two threads."""

    def __init__(self, path: Path, *, limit: float = math.inf, too_large: StorageError | None = None) -> None:
        """`limit` in bytes; writing more raises `too_large`. Raises OSError, when `path` exists too."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self._limit = limit
        self._too_large = too_large
        self._digest = hashlib.sha256()
        self.size = 0
        """Bytes written."""

    def write(self, data: bytes | bytearray) -> None:
        """Raises StorageError above the limit, OSError."""
        if self.size + len(data) > self._limit:
            raise self._too_large or StorageError(f"{self._limit:g} bytes exceeded")
        self._digest.update(data)
        self.size += len(data)
        note_fetched(len(data))
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of what was written."""
        return self._digest.digest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)
