"""Content by CID from a kubo node or from trustless gateways, where no peer of ours has it.

Neither is trusted: each block is checked against its CID, blocks that nothing asked for are refused
before they are stored, and the content counts as had only when all of it has come.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Protocol

import trio

from bacalhau_p2p.errors import ContentError, Fault, InvalidCID, InvalidContent, StorageError
from bacalhau_p2p.ipfs.content import Content
from bacalhau_p2p.ipfs.exchange.dag_size import claimed_size
from bacalhau_p2p.ipfs.format.car import (
    CAR_MEDIA_TYPE_DEPTH_FIRST,
    RAW_MEDIA_TYPE,
    CarReader,
    header,
    section,
)
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, MAX_BLOCK, Limits
from bacalhau_p2p.ipfs.format.traversal import ROOT, Depth, links_of
from bacalhau_p2p.ipfs.format.unixfs import decode
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.service import Service, ServiceFault
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider

TOTAL = 14 * 60.0
"""Seconds for all sources together: less than what an execution has to prepare."""
_GULP = 256 * 1024


class CarSource(Protocol):
    """A server that gives a whole DAG as a CAR."""

    @property
    def name(self) -> str: ...

    async def has(self, cid: CID) -> bool:
        """Whether it says at once that it has this, without a search."""
        ...

    async def block(self, cid: CID) -> bytes | None:
        """One block as it says, not checked, if it has that at once."""
        ...

    def car(self, cid: CID, limit: int) -> AsyncGenerator[bytes, None]:
        """The DAG below `cid`, `limit` bytes at most. Raises ServiceFault."""
        ...


class KuboSource:
    """A kubo node by its RPC; what it has not, it looks for in the IPFS network."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def name(self) -> str:
        return f"kubo at {self._service.host}"

    async def has(self, cid: CID) -> bool:
        try:
            with trio.fail_after(5):
                await self._service.call(
                    "POST", "/api/v0/block/stat", query={"arg": str(cid), "offline": "true"}
                )
        except (ServiceFault, trio.TooSlowError):
            return False
        return True

    async def block(self, cid: CID) -> bytes | None:
        query = {"arg": str(cid), "offline": "true"}
        return await _whole(
            self._service.stream("POST", "/api/v0/block/get", query=query, headers={}, limit=MAX_BLOCK)
        )

    def car(self, cid: CID, limit: int) -> AsyncGenerator[bytes, None]:
        query = {"arg": str(cid), "progress": "false"}
        return self._service.stream("POST", "/api/v0/dag/export", query=query, headers={}, limit=limit)


class GatewaySource:
    """A trustless gateway."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def name(self) -> str:
        return f"the gateway {self._service.host}"

    async def has(self, cid: CID) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    async def block(self, cid: CID) -> bytes | None:
        query, headers = {"format": "raw"}, {"Accept": RAW_MEDIA_TYPE}
        return await _whole(
            self._service.stream("GET", f"/ipfs/{cid}", query=query, headers=headers, limit=MAX_BLOCK)
        )

    def car(self, cid: CID, limit: int) -> AsyncGenerator[bytes, None]:
        query = {"format": "car", "dag-scope": "all"}
        return self._service.stream(
            "GET", f"/ipfs/{cid}", query=query, headers={"Accept": CAR_MEDIA_TYPE_DEPTH_FIRST}, limit=limit
        )


class IpfsWebStorage(StorageProvider):
    """The `ipfs` provider with further sources: peers are asked first, unless a source has it for sure."""

    def __init__(
        self,
        peers: StorageProvider,
        content: Content,
        sources: Sequence[CarSource],
        *,
        limits: Limits = DEFAULT_LIMITS,
        total: float = TOTAL,
    ) -> None:
        """`peers` is the provider that asks them; `total`: seconds for all sources together."""
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
        """As of content from peers; sources are asked for the root block at the same time."""
        cid = CID.parse(str(source.params.get("CID", "")))
        found: InputSize | None = None
        failure: ContentError | None = None

        async def ask(look: Callable[[], Awaitable[InputSize | None]]) -> None:
            nonlocal found, failure
            try:
                found = await look() or found
            except ContentError as error:  # carried out of the nursery, which would wrap it
                failure = error
            if found is not None:
                nursery.cancel_scope.cancel()

        async def by_root(each: CarSource) -> InputSize | None:
            block = await each.block(cid)
            claimed = None if block is None else claimed_size(cid, block, self._limits)
            return None if claimed is None else InputSize.as_blocks(claimed)

        if await self._peers.has_locally(source):
            return await self._peers.size(source)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, partial(self._peers.size, source, hints=hints))
            for each in self._sources:
                nursery.start_soon(ask, partial(by_root, each))
        if found is None and failure is not None:
            raise failure
        return found

    async def prepare(
        self, source: SpecConfig, folder: Path, *, hints: Sequence[PeerID] = ()
    ) -> PreparedInput:
        """As `StorageProvider.prepare`; the error tells what peers and each source said."""
        try:
            cid = CID.parse(str(source.params.get("CID", "")))
            cid.require_fetchable()
        except ContentError:
            return await self._peers.prepare(source, folder, hints=hints)  # says what is wrong
        with self._content.holding(cid):
            if not await self._content.has(cid):
                for sure in self._sources:
                    if await sure.has(cid) and await self._take(cid, sure) is None:
                        break
            try:
                return await self._peers.prepare(source, folder, hints=hints)
            except StorageError as error:
                if error.permanent:
                    raise
                failures = [str(error)]
            failures += await self._take_from_any(cid)
            if failures[-1]:
                raise StorageError("; ".join(failures))
            return await self._peers.prepare(source, folder, hints=hints)

    async def cleanup(self, prepared: PreparedInput) -> None:
        await self._peers.cleanup(prepared)

    async def _take_from_any(self, cid: CID) -> list[str]:
        """Why each source could not give it; the last is empty when one could."""
        failures: list[str] = []
        with trio.move_on_after(self._total):
            for source in self._sources:
                failure = await self._take(cid, source)
                failures.append(failure or "")
                if failure is None:
                    return failures
            return failures
        return [
            *failures,
            f"{self._sources[len(failures)].name} was not done within {self._total:g} s in all",
        ]

    async def _take(self, cid: CID, source: CarSource) -> str | None:
        """None when all of it is in the store now, else why not."""
        limit = self._limits.bytes + self._limits.bytes // 8
        try:
            async with (
                aclosing(source.car(cid, limit)) as pieces,
                aclosing(_solicited(cid, pieces, self._limits)) as blocks,
            ):
                await self._content.import_car(blocks, pin_owner=pin_owners.FETCHED)
            await self._content.unpin(cid, pin_owners.FETCHED)  # it is held while it is needed
        except ServiceFault as fault:
            return f"{source.name}: {fault}"
        except (ContentError, InvalidCID) as error:
            return f"{source.name} sent wrong data: {error}"
        return None


async def _solicited(root: CID, pieces: AsyncIterator[bytes], limits: Limits) -> AsyncGenerator[bytes, None]:
    """A CAR with `root` as its only root and the blocks below that, each once.

    Raises InvalidContent at the first block to which none before it links, and at an end too soon.
    """
    reader, wanted, seen = CarReader(), {root.v1: ROOT}, set[CID]()
    yield header([root])
    async for gulp in _gulps(pieces):
        for cid, block in await trio.to_thread.run_sync(reader.feed, gulp):
            if cid.v1 in seen:
                continue
            if cid.v1 not in wanted:
                raise InvalidContent(f"block {cid} was not asked for")
            _follow(cid.v1, block, wanted, seen, limits)
            yield section(cid.v1, block)
    reader.finish()
    if wanted:
        raise InvalidContent(f"it ended before all blocks had come, {next(iter(wanted))} among them")


def _follow(cid: CID, block: bytes, wanted: dict[CID, Depth], seen: set[CID], limits: Limits) -> None:
    depth = wanted.pop(cid)
    seen.add(cid)
    for link, link_depth in links_of(decode(cid, block, limits), depth, limits):
        link.require_fetchable()
        if link.v1 not in seen:
            wanted[link.v1] = link_depth
    limits.check_blocks(len(seen) + len(wanted))


async def _whole(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    """All of an answer, None when there is none."""
    try:
        async with aclosing(pieces):
            return b"".join([piece async for piece in pieces])
    except ServiceFault:
        return None


async def _gulps(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Pieces that are worth a thread."""
    gulp = bytearray()
    async for piece in pieces:
        gulp += piece
        if len(gulp) >= _GULP:
            yield bytes(gulp)
            gulp.clear()
    yield bytes(gulp)
