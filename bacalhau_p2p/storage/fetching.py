"""What the storage providers share that fetch over the web: one fetch at a time for each source, what
was fetched before, time-outs, and nothing half done left behind."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import trio

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.model.quantities import format_bytes
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.storage.cache import Cached, InputCache
from bacalhau_p2p.storage.files import remove_tree
from bacalhau_p2p.storage.interface import InputSize, PreparedInput

log = get_logger(__name__)

TOTAL = 14 * 60.0
"""Seconds in which an input must be there: less than what an execution has to prepare."""
IDLE = 30.0
"""Seconds without a byte after which a server is given up."""
INPUT_LIMIT = 16 * 1000**3
"""Bytes of one input."""
_GULP = 1024 * 1024
_INPUT, _PART = "input", ".part"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """What fetching one input may take."""

    bytes: int = INPUT_LIMIT
    idle: float = IDLE
    total: float = TOTAL
    pauses: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Seconds before each further attempt at what may pass."""


class UnchangedError(Exception):
    """What was fetched before is still right."""


Fetch = Callable[[Path, Cached | None], Awaitable[Mapping[str, str] | None]]
"""Fetches to a path where nothing is yet. Gives the note by which it can later be found unchanged, None
when it must be fetched anew each time. Raises StorageError; UnchangedError if it was told of an entry."""


class Fetcher:
    """Fetches for one provider. `cache` may be shared by several."""

    def __init__(self, cache: InputCache, limits: FetchLimits, threads: trio.CapacityLimiter) -> None:
        self._cache = cache
        self.limits = limits
        self.threads = threads
        self._gates: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()

    async def has(self, key: str) -> bool:
        """Whether it was fetched before and is still there."""
        return await self.thread(self._cache.find, key) is not None

    async def size_here(self, key: str) -> InputSize | None:
        """What was fetched before and is still there, which takes no more room: it is lent."""
        known = await self.thread(self._cache.find, key)
        return None if known is None else InputSize(total=known.size, local=known.size)

    def size_there(self, total: int) -> InputSize:
        """An input of so many bytes that is to be fetched. Raises StorageError above the limit."""
        if total > self.limits.bytes:
            raise StorageError(
                f"an input has {format_bytes(total)}, and this node takes {format_bytes(self.limits.bytes)}"
            )
        return InputSize(total=total, disk=total)

    async def prepare(self, key: str, folder: Path, fetch: Fetch) -> PreparedInput:
        """The input in `folder`, from the cache if `fetch` finds it unchanged.

        Raises StorageError. Failed or cancelled: the folder is empty again.
        """
        target, part = folder / _INPUT, folder / _PART
        gate = self._gates.setdefault(key, trio.Lock())
        done = False
        try:
            with trio.fail_after(self.limits.total):
                async with gate:
                    await self._bring(key, target, part, fetch)
            done = True
        except trio.TooSlowError:
            raise StorageError(f"the input was not there within {self.limits.total:g} s") from None
        except OSError as error:
            raise StorageError(f"the input cannot be written: {error.strerror or error}") from error
        finally:
            if not done:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(remove_tree, target)
                    await trio.to_thread.run_sync(remove_tree, part)
        return PreparedInput(path=target)

    async def _bring(self, key: str, target: Path, part: Path, fetch: Fetch) -> None:
        known = await self.thread(self._cache.find, key)
        try:
            note = await fetch(part, known)
        except UnchangedError:
            if await self.thread(self._cache.lend, key, target):
                return
            note = await fetch(part, None)
        await self.thread(part.rename, target)
        if note is not None:
            try:
                await self.thread(self._cache.keep, key, target, note)
            except OSError as error:  # the input is there all the same
                log.warning("input_not_kept", reason=error.strerror or str(error))

    async def cleanup(self, prepared: PreparedInput) -> None:
        await trio.to_thread.run_sync(remove_tree, prepared.path)

    async def thread(self, call: Callable[..., Any], *args: object) -> Any:
        return await trio.to_thread.run_sync(call, *args, limiter=self.threads)


class Spool:
    """Writes a stream to a new file, counts and hashes it. `limit` in bytes."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._sha256 = hashlib.sha256()
        self.size = 0

    async def take(self, chunks: AsyncIterator[bytes], thread: Callable[..., Awaitable[Any]]) -> None:
        """Write all of it. Raises StorageError above the limit, OSError."""
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            gulp = bytearray()
            async for chunk in chunks:
                self.check(self.size + len(gulp) + len(chunk))
                gulp += chunk
                if len(gulp) >= _GULP:
                    await thread(self._write, file, gulp)
                    gulp = bytearray()
            await thread(self._write, file, gulp)
        finally:
            os.close(file)

    def check(self, size: int) -> None:
        """Raises StorageError when `size` is above the limit."""
        if size > self._limit:
            raise StorageError(f"it is larger than the {self._limit} bytes that this node takes")

    def _write(self, file: int, data: bytearray) -> None:
        self._sha256.update(data)
        self.size += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]

    @property
    def sha256(self) -> str:
        """Of what was written, in hex."""
        return self._sha256.hexdigest()
