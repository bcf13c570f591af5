"""Inputs by CID, with kubo nodes and trustless gateways as further sources.

They are not trusted: each block is checked against its CID, a block that was not requested is refused
before it is stored, and content counts as fetched only when all of it has arrived.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

import trio

from bacalhau_p2p.errors import ContentError, Fault, InvalidCID, StorageError
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.exchange.dag_size import claimed_size
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.service import ServiceError
from bacalhau_p2p.runtime.transfers import note_fetched
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider
from bacalhau_p2p.storage.ipfs.car_check import requested_blocks
from bacalhau_p2p.storage.ipfs.car_sources import CarSource
from bacalhau_p2p.storage.ipfs.provider import requested_path

TOTAL_TIMEOUT = 14 * 60.0
"""Seconds for all sources together: less than what an execution has to prepare."""


class IpfsWebStorage(StorageProvider):
    """The `ipfs` provider with further sources: asked after the peers, or before them if a source holds
    the content for sure."""

    def __init__(
        self,
        peers: StorageProvider,
        content: Content,
        sources: Sequence[CarSource],
        *,
        limits: Limits = DEFAULT_LIMITS,
        total: float = TOTAL_TIMEOUT,
    ) -> None:
        """`peers` is the provider that asks peers; `total`: seconds for all sources together."""
        self._peers = peers
        self._content = content
        self._sources = tuple(sources)
        self._limits = limits
        self._total = total

    @property
    def source(self) -> str:
        return self._peers.source

    def faults(self, source: SpecConfig) -> list[Fault]:
        return self._peers.faults(source)

    async def input_faults(self, source: SpecConfig) -> list[Fault]:
        return await self._peers.input_faults(source)

    async def has_locally(self, source: SpecConfig) -> bool:
        return await self._peers.has_locally(source)

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        """As of content from peers; peers and sources are asked for the root block at the same time. Sources
        are not asked about a path below a CID."""
        cid, names = requested_path(source)
        found: InputSize | None = None
        failure: ContentError | None = None

        async def ask(measure: Callable[[], Awaitable[InputSize | None]]) -> None:
            nonlocal found, failure
            try:
                found = await measure() or found
            except ContentError as error:  # counts only if the size is found nowhere
                failure = error
            if found is not None:
                nursery.cancel_scope.cancel()

        async def measure_root(car_source: CarSource) -> InputSize | None:
            block = await car_source.block(cid)
            claimed = None if block is None else claimed_size(cid, block, self._limits)
            return None if claimed is None else InputSize.as_blocks(claimed)

        if await self._peers.has_locally(source):
            return await self._peers.size(source)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, partial(self._peers.size, source, hints=hints))
            for each in () if names else self._sources:
                nursery.start_soon(ask, partial(measure_root, each))
        if found is None and failure is not None:
            raise failure
        return found

    async def prepare(
        self,
        source: SpecConfig,
        folder: Path,
        *,
        hints: Sequence[PeerID] = (),
        max_bytes: int | None = None,
    ) -> PreparedInput:
        """As `StorageProvider.prepare`; the error has the reasons of the peers and of each source."""
        if self.faults(source):
            return await self._peers.prepare(source, folder)  # raises the fault
        cid, _ = requested_path(source)
        with self._content.holding(cid):
            if not await self._peers.has_locally(source) and not await self._content.has(cid):
                for holder in self._sources:
                    if await holder.has(cid) and await self._import(cid, holder) is None:
                        break
            try:
                return await self._peers.prepare(source, folder, hints=hints, max_bytes=max_bytes)
            except StorageError as error:
                if error.permanent:
                    raise
                reasons = [str(error)]
            if not await self._import_from_any(cid, reasons):
                raise StorageError("; ".join(reasons))
            return await self._peers.prepare(source, folder, hints=hints, max_bytes=max_bytes)

    async def cleanup(self, prepared: PreparedInput) -> None:
        await self._peers.cleanup(prepared)

    async def _import_from_any(self, cid: CID, reasons: list[str]) -> bool:
        """Whether one of the sources had it; the reason of each that did not goes into `reasons`."""
        current = ""
        with trio.move_on_after(self._total):
            for source in self._sources:
                current = f"{source.kind} {source.host}"
                reason = await self._import(cid, source)
                if reason is None:
                    return True
                reasons.append(reason)
            return False
        reasons.append(f"{current}: not done within {self._total:g} s for all sources")
        return False

    async def _import(self, cid: CID, source: CarSource) -> str | None:
        """None when all of it is in the store now, else the reason."""
        limit = self._limits.bytes + self._limits.bytes // 8
        try:
            async with (
                aclosing(_counted(source.car(cid, limit))) as pieces,
                aclosing(requested_blocks(cid, pieces, self._limits)) as blocks,
            ):
                await self._content.import_car(blocks, pin_owner=pin_owners.FETCHED)
            await self._content.unpin(cid, pin_owners.FETCHED)  # the caller holds it
        except ServiceError as error:
            return f"{source.kind} {error}"
        except (ContentError, InvalidCID) as error:
            return f"{source.kind} {source.host}: invalid data: {error}"
        return None


async def _counted(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        async for piece in pieces:
            note_fetched(len(piece))
            yield piece
