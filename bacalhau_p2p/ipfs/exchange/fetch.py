"""Fetches one DAG: finds its providers, shares the missing parts among them, and asks gateways at last."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from bacalhau_p2p.errors import ContentError
from bacalhau_p2p.ipfs.exchange.block_receiver import BlockReceiver
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.fetch_report import FetchReport
from bacalhau_p2p.ipfs.exchange.fetch_round import ByteCount, FetchRound
from bacalhau_p2p.ipfs.exchange.interface import FallbackProtocol, Sources
from bacalhau_p2p.ipfs.exchange.provider_search import ProviderSearch
from bacalhau_p2p.ipfs.exchange.providers import CarProvider, PartFetch
from bacalhau_p2p.ipfs.exchange.requests import Requests
from bacalhau_p2p.ipfs.exchange.scheduler import LEAST_PROGRESS, Scheduler
from bacalhau_p2p.ipfs.exchange.wire import MAX_WANTED
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.traversal import Walk
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.runtime.threads import Threads

GATEWAY_TIMEOUT = 5.0
"""Seconds of the search that are reserved for gateways, or a third of it when that is less."""
SLOW_AFTER = 5.0
"""Seconds in which a fetch should receive LEAST_PROGRESS a second; otherwise it looks for other providers."""
MAX_PARTS_FROM_GATEWAY = 16
"""Parts that are requested from a gateway one by one; when more are missing, the whole DAG is requested."""


class Fetch:
    """One DAG being fetched."""

    def __init__(
        self,
        cid: CID,
        sources: Sources,
        blocks: BlockStore,
        requests: Requests,
        threads: Threads,
        *,
        timeout: float,
        max_bytes: int | None,
        parts: Sequence[CID] | None = None,
        fallback: FallbackProtocol | None = None,
    ) -> None:
        """`timeout`: seconds within which a provider must be found. `parts`: see `Exchange.fetch`."""
        self._cid = cid
        self._whole = parts is None
        self._parts = [cid] if parts is None else list(dict.fromkeys(parts))
        """DAGs that are not known to be complete."""
        self._sources = sources
        self._blocks = blocks
        self._threads = threads
        self._receiver = BlockReceiver(blocks, requests, threads)
        self._report = FetchReport()
        self._received = ByteCount(blocks.limits, max_bytes)
        self._gateway_timeout = min(GATEWAY_TIMEOUT, timeout / 3)
        self._timeout = timeout

        def make_provider(peer: PeerID, whole: bool) -> CarProvider:
            return CarProvider(peer, cid, requests, self._receiver, blocks.limits, whole=whole)

        self._search = ProviderSearch(
            cid,
            sources.peers,
            requests,
            self._report,
            make_provider=make_provider,
            finder=sources.finder,
            fallback=fallback,
        )

    async def run(self) -> None:
        """Raises ContentNotFound, InvalidContent, ContentTooLarge, ContentError."""
        reserved = self._gateway_timeout if self._sources.gateways(()) else 0
        async with background() as nursery:
            nursery.start_soon(self._search.run, self._timeout - reserved)
            nursery.start_soon(self._search_again_if_slow)
            await self._fetch()

    async def _search_again_if_slow(self) -> None:
        """Ask the finder after all when those that said to have everything hardly send anything."""
        while not self._search.exhausted:
            before = self._received.total
            await trio.sleep(SLOW_AFTER)
            slow = self._received.total - before < SLOW_AFTER * LEAST_PROGRESS
            if slow and not self._search.active and not self._search.exhausted:
                await self._search.extend(self._timeout)

    async def _fetch(self) -> None:
        last_missing: tuple[CID, ...] = ()
        while True:
            missing = await self._threads.run(self._missing)
            if not missing:
                return
            if missing == last_missing:
                raise ContentError(f"blocks of {self._cid} disappear from the store after they are written")
            scheduler = Scheduler[PartFetch](missing)
            await FetchRound(
                scheduler, self._search, self._blocks, self._threads, self._report, self._received
            ).run(self._timeout)
            if not scheduler.finished and not await self._fetch_from_gateways(scheduler.unassigned):
                raise self._report.error(self._cid, partial_providers=len(self._search.providers))
            last_missing = () if scheduler.needs_rescan else missing

    def _missing(self) -> tuple[CID, ...]:
        """At most MAX_WANTED blocks that are missing; none when all is there. Blocks."""
        found, incomplete = dict[CID, None](), list[CID]()
        for number, part in enumerate(self._parts):
            if len(found) >= MAX_WANTED:
                incomplete += self._parts[number:]
                break
            stat = self._blocks.dag_stat(part, missing_limit=MAX_WANTED - len(found))
            if not stat.complete:
                found.update(dict.fromkeys(stat.missing))
                incomplete.append(part)
        self._parts = incomplete
        return tuple(found)

    async def _fetch_from_gateways(self, missing: list[CID]) -> bool:
        """Whether a gateway sent what no peer could."""
        wanted = missing if len(missing) <= MAX_PARTS_FROM_GATEWAY or not self._whole else [self._cid]
        for gateway in self._sources.gateways((*self._search.named, *self._sources.peers)):
            try:
                for cid in wanted:
                    async with gateway.open(cid, self._gateway_timeout) as receive:
                        walk = Walk([cid], self._blocks.limits)
                        await self._receiver.store(receive, walk, self._received.add)
            except PeerFault as fault:
                self._report.gateway_failed(gateway.name, fault)
            else:
                return True
        return False
