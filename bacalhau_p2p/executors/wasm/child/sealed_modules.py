"""Compiled modules in memory that nobody can change any more, so that each is read and verified once.

A program of 25 MB of native code, such as an interpreter, takes longer to read, compare and copy than many a
run takes. The warm process keeps those that are used again and again, and the processes of jobs map them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from typing import Any

LEAST_SIZE = 1024 * 1024
"""Bytes of code from which that is worth it."""
MAX_SIZE = 128 * 1024 * 1024
"""Bytes of all modules that are kept."""
MAX_SEEN = 256
"""Modules of which it is remembered that they were used once."""

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_Key = tuple[str, str]


class SealedModules:
    """The modules that were used last, by their key and the SHA-256 of their code."""

    def __init__(self, *, limit: int = MAX_SIZE) -> None:
        self._limit = limit
        self._seen: dict[_Key, None] = {}
        self._kept: dict[_Key, tuple[int, int]] = {}  # descriptor and size; the last one was used last

    def descriptor(self, module: dict[str, Any]) -> int:
        """A memory file with the code of a module, from its second use on; -1 if there is none."""
        key = (module["key"], module["compiled_sha256"])
        if key in self._kept:
            self._kept[key] = self._kept.pop(key)
            return self._kept[key][0]
        if key not in self._seen:
            while len(self._seen) >= MAX_SEEN:
                del self._seen[next(iter(self._seen))]
            self._seen[key] = None
            return -1
        try:
            kept = _sealed(module, self._limit)
        except OSError:
            return -1
        if kept is None:
            return -1
        self._kept[key] = kept
        while sum(size for _, size in self._kept.values()) > self._limit:
            fd, _ = self._kept.pop(next(iter(self._kept)))
            os.close(fd)
        return kept[0]


def _sealed(module: dict[str, Any], limit: int) -> tuple[int, int] | None:
    """A descriptor and the size of the code; None if that is too small or large, or not what the node wrote.

    Raises OSError.
    """
    with open(module["compiled"], "rb") as file:  # noqa: PTH123
        size = os.fstat(file.fileno()).st_size - module["skip"]
        if not LEAST_SIZE <= size <= limit:
            return None
        file.seek(module["skip"])
        code = file.read(size)
    if hashlib.sha256(code).hexdigest() != module["compiled_sha256"]:
        return None
    fd = os.memfd_create("wasm", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(code)
        while rest:
            rest = rest[os.write(fd, rest) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd, len(code)
