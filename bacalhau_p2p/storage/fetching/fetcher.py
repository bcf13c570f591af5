"""Fetches inputs with a cache and time limits; a failed fetch leaves nothing behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from weakref import WeakValueDictionary

import trio

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.model.quantities import format_bytes
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.runtime.threads import Threads
from bacalhau_p2p.storage.fetching.input_cache import CachedInput, InputCache
from bacalhau_p2p.storage.interface import InputSize, PreparedInput

log = get_logger(__name__)

TOTAL_TIMEOUT = 14 * 60.0
"""Seconds to fetch an input, retries included: less than an execution has to prepare."""
IDLE_TIMEOUT = 30.0
"""Seconds without a byte after which a request has failed."""
INPUT_LIMIT = 16 * 1000**3
"""Bytes of one input."""
_INPUT, _PART = "input", ".part"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """Limits of fetching one input."""

    bytes: int = INPUT_LIMIT
    idle: float = IDLE_TIMEOUT
    total: float = TOTAL_TIMEOUT
    pauses: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Seconds before each further attempt after a temporary failure."""


class InputUnchanged(Exception):
    """The cached input is still the same as its source."""


Fetch = Callable[[Path, CachedInput | None], Awaitable[Mapping[str, str] | None]]
"""Fetches to a path where nothing exists, given the cached input if there is one. Returns the fingerprint
by which a change is recognised later, None when there is none and nothing can be cached.
Raises StorageError, and InputUnchanged if the cached input can be used."""


class Fetcher:
    """Fetches inputs for providers, which may share it with its cache and threads."""

    def __init__(self, cache: InputCache, limits: FetchLimits, threads: Threads) -> None:
        self._cache = cache
        self.limits = limits
        self.threads = threads
        self._limit_text = "this node's input limit of {}"
        self._locks: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()

    async def is_cached(self, key: str) -> bool:
        return await self.threads.run(self._cache.get, key) is not None

    async def cached_size(self, key: str) -> InputSize | None:
        """The size of a cached input, which takes no more disk; None when it is not cached."""
        cached = await self.threads.run(self._cache.get, key)
        return None if cached is None else InputSize(total=cached.size, local=cached.size)

    def size_to_fetch(self, total: int) -> InputSize:
        """The size of an input that must be fetched. Raises StorageError above the limit."""
        if total > self.limits.bytes:
            raise self.too_large(f"an input of {format_bytes(total)}")
        return InputSize(total=total, disk=total)

    def within(self, max_bytes: int | None) -> Self:
        """The same fetcher, or one that fetches at most `max_bytes` for an input."""
        if max_bytes is None or max_bytes >= self.limits.bytes:
            return self
        narrow = copy(self)
        narrow.limits = replace(self.limits, bytes=max_bytes)
        narrow._limit_text = "the {} that are reserved for inputs"
        return narrow

    def too_large(self, what: str) -> StorageError:
        """The error for an input above the limit."""
        return StorageError(f"{what} exceeds {self._limit_text.format(format_bytes(self.limits.bytes))}")

    async def prepare(self, key: str, folder: Path, fetch: Fetch) -> PreparedInput:
        """The input in `folder`, from the cache if `fetch` finds it unchanged.

        Inputs of one key are fetched one after the other. Raises StorageError. Failed or cancelled: the
        folder is empty again.
        """
        target, part = folder / _INPUT, folder / _PART
        lock = self._locks.setdefault(key, trio.Lock())
        done = False
        try:
            with trio.fail_after(self.limits.total):
                async with lock:
                    await self._fetch_or_link(key, target, part, fetch)
            done = True
        except trio.TooSlowError:
            raise StorageError(f"fetching the input took longer than {self.limits.total:g} s") from None
        except OSError as error:
            raise StorageError(f"the input cannot be written: {error.strerror or error}") from error
        finally:
            if not done:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(discard_tree, target)
                    await trio.to_thread.run_sync(discard_tree, part)
        return PreparedInput(path=target)

    async def _fetch_or_link(self, key: str, target: Path, part: Path, fetch: Fetch) -> None:
        cached = await self.threads.run(self._cache.get, key)
        try:
            fingerprint = await fetch(part, cached)
        except InputUnchanged:
            if await self.threads.run(self._cache.link, key, target):
                return
            fingerprint = await fetch(part, None)
        await self.threads.run(part.rename, target)
        if fingerprint is not None:
            try:
                await self.threads.run(self._cache.put, key, target, fingerprint)
            except OSError as error:  # the job has its input all the same
                log.warning("input_not_cached", reason=error.strerror or str(error))

    async def cleanup(self, prepared: PreparedInput) -> None:
        await trio.to_thread.run_sync(discard_tree, prepared.path)
