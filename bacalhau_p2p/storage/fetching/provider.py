"""The part of a storage provider that is the same for all inputs from the web."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from bacalhau_p2p.errors import Fault, InvalidJob, StorageError
from bacalhau_p2p.model.base import Model, PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.storage.fetching.fetcher import Fetcher
from bacalhau_p2p.storage.fetching.input_cache import CachedInput
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider

P = TypeVar("P", bound=Model)


class FetchingProvider(StorageProvider, Generic[P]):
    """A provider that fetches its inputs, of parameters `P`, by way of a `Fetcher`."""

    def __init__(self, source: str, fetcher: Fetcher) -> None:
        """`source` is the type to answer to."""
        self._source = source
        self._fetcher = fetcher

    @abstractmethod
    def _params(self, source: SpecConfig) -> P:
        """The parameters of a source. Raises InvalidJob."""

    @abstractmethod
    def _key(self, params: P) -> str:
        """What the input is cached under."""

    @abstractmethod
    async def _remote_size(self, params: P) -> int | None:
        """Bytes of an input that is not cached; None when they cannot be found out soon.

        Raises StorageError when this node cannot take the input.
        """

    @abstractmethod
    async def _fetch(
        self, params: P, target: Path, cached: CachedInput | None, fetcher: Fetcher
    ) -> Mapping[str, str] | None:
        """As `Fetch`, for these parameters and within the limits of `fetcher`."""

    def _setting_faults(self, params: P) -> list[Fault]:
        """What the settings of this node do not allow. Pure."""
        return []

    @property
    def source(self) -> str:
        return self._source

    def faults(self, source: SpecConfig) -> list[Fault]:
        try:
            return self._setting_faults(self._params(source))
        except InvalidJob as error:
            return list(error.faults)

    async def has_locally(self, source: SpecConfig) -> bool:
        """Whether the input is cached."""
        try:
            return await self._fetcher.is_cached(self._key(self._params(source)))
        except InvalidJob:
            return False

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        try:
            params = self._params(source)
        except InvalidJob:
            return None
        if (cached := await self._fetcher.cached_size(self._key(params))) is not None:
            return cached
        total = await self._remote_size(params)
        return None if total is None else self._fetcher.size_to_fetch(total)

    async def prepare(
        self,
        source: SpecConfig,
        folder: Path,
        *,
        hints: Sequence[PeerID] = (),
        max_bytes: int | None = None,
    ) -> PreparedInput:
        """As `StorageProvider.prepare`; permanent for data that does not exist or has another hash."""
        if faults := self.faults(source):
            raise StorageError(
                f"invalid {self._source} input: {faults[0]}", permanent=not faults[0].this_node_only
            )
        params = self._params(source)

        async def fetch(target: Path, cached: CachedInput | None) -> Mapping[str, str] | None:
            # Nothing was reserved for a cached input, which may have changed since.
            room = None if max_bytes is None else max_bytes + 2 * (cached.size if cached else 0)
            return await self._fetch(params, target, cached, self._fetcher.within(room))

        return await self._fetcher.prepare(self._key(params), folder, fetch)

    async def cleanup(self, prepared: PreparedInput) -> None:
        await self._fetcher.cleanup(prepared)
