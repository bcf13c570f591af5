"""Fetches the missing parts of one DAG from its providers, while more of them may be found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf

import trio

from bacalhau_p2p.errors import ContentError, ContentTooLarge
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.fetch_report import FetchReport
from bacalhau_p2p.ipfs.exchange.flat_walk import FlatWalk, missing_parts
from bacalhau_p2p.ipfs.exchange.provider_search import ProviderSearch
from bacalhau_p2p.ipfs.exchange.providers import PartFetch, Provider
from bacalhau_p2p.ipfs.exchange.scheduler import STALL_TIMEOUT, Assignment, Scheduler
from bacalhau_p2p.ipfs.exchange.wire import MAX_WANTED
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.runtime.threads import Threads
from bacalhau_p2p.runtime.transfers import note_fetched

IDLE_PROVIDER_INTERVAL = 0.05
"""Seconds between two looks of an idle provider for parts that it could steal."""
MAX_ACTIVE_PROVIDERS = 8
"""Providers of one DAG that are fetched from at the same time, without those that send nothing."""
MAX_STARTED_PROVIDERS = 64
"""Providers of one DAG at the same time, with those that send nothing."""
MAX_FLAT_BLOCKS = 256
"""Blocks with links that one request fetches without what is below them."""
MAX_UNASSIGNED = 20_000
"""Unassigned parts above which leaves are fetched before further blocks with links."""


LINK_BYTES = 4 * 1024 * 1024
"""Bytes of blocks with links that a fetch may receive beyond its limit, and an eighth of that limit."""


class ByteCount:
    """Bytes that one fetch has received in all."""

    def __init__(self, limits: Limits, max_bytes: int | None = None) -> None:
        """`max_bytes`: of blocks, and a little more for those that hold links."""
        self._limits = limits
        self._most = inf if max_bytes is None else max_bytes + max_bytes // 8 + LINK_BYTES
        self._bytes = 0

    def add(self, size: int) -> None:
        """Raises ContentTooLarge for more than `max_bytes`."""
        note_fetched(size)
        self._bytes += size
        if self._bytes > self._most:
            error = ContentTooLarge(f"the content has at least {self._bytes} bytes")
            error.size = self._bytes
            raise error

    @property
    def total(self) -> int:
        """Bytes so far."""
        return self._bytes

    def check(self) -> None:
        """Raises ContentTooLarge."""
        self._limits.check_transfer(self._bytes)


class FetchRound:
    """Brings the parts of one scheduler into the block store, as far as there are providers for them."""

    def __init__(
        self,
        scheduler: Scheduler[PartFetch],
        search: ProviderSearch,
        blocks: BlockStore,
        threads: Threads,
        report: FetchReport,
        received: ByteCount,
    ) -> None:
        self._scheduler = scheduler
        self._search = search
        self._changed = search.changed
        self._blocks = blocks
        self._threads = threads
        self._report = report
        self._received = received
        self._started: set[Provider] = set()
        self._active: set[Provider] = set()
        self._idle: set[Provider] = set()
        self._failure: ContentError | None = None

    async def run(self, search_timeout: float) -> None:
        """Returns when all parts are fetched, or when no provider is left; the scheduler knows which.

        Raises ContentError for what is wrong in the content.
        """
        async with background() as nursery:
            while not self._scheduler.finished and self._failure is None:
                waiting = [each for each in self._search.providers if each not in self._started]
                for provider in waiting[: self._room()]:
                    self._started.add(provider)
                    self._active.add(provider)
                    nursery.start_soon(self._use, provider)
                if not self._active and not self._search.active:
                    if self._search.exhausted:
                        return
                    self._search.active = True
                    nursery.start_soon(self._search.extend, search_timeout)
                with trio.move_on_after(STALL_TIMEOUT if waiting else inf):
                    await self._changed.wait()
            if self._failure is not None:
                raise self._failure

    def _room(self) -> int:
        """How many more providers may be fetched from."""
        stalled = self._scheduler.stalled_peers(trio.current_time())
        sending = sum(provider.peer not in stalled for provider in self._active)
        return max(0, min(MAX_ACTIVE_PROVIDERS - sending, MAX_STARTED_PROVIDERS - len(self._active)))

    async def _use(self, provider: Provider) -> None:
        try:
            await self._fetch_from(provider)
        except PeerFault as fault:
            self._report.transfer_failed(provider.peer, fault)
            self._search.providers.remove(provider)
        except ContentError as error:
            self._failure = error
        finally:
            self._active.discard(provider)
            self._idle.discard(provider)
            self._changed.fire()

    async def _fetch_from(self, provider: Provider) -> None:
        """Fetch one assignment after the other from a provider, until no provider has what is left.

        Raises PeerFault when the provider failed, ContentError for what is wrong in the content.
        """
        while not self._scheduler.finished:
            assignment = await self._next_assignment(provider)
            if assignment is not None:
                self._idle.clear()
                await self._fetch(provider, assignment)
                self._changed.fire()
                continue
            self._idle.add(provider)
            if self._idle >= self._active and not self._scheduler.busy and not self._search.active:
                return
            with trio.move_on_after(IDLE_PROVIDER_INTERVAL):
                await self._changed.wait()

    async def _next_assignment(self, provider: Provider) -> Assignment[PartFetch] | None:
        """What a provider should fetch next: unassigned parts, else parts that it can steal from another
        provider, else the rest of an assignment that has stalled."""
        now = trio.current_time()
        scheduler = self._scheduler
        while scheduler.unassigned or scheduler.steal(provider.peer, now):
            wanted, flat = await self._choose(provider)
            if not wanted:
                break
            with scheduler.reserving(wanted):
                missing, found = await self._threads.run(
                    partial(missing_parts, wanted, self._blocks, flat=flat)
                )
                scheduler.add(found)
                self._blocks.limits.check_blocks(len(scheduler))
                if missing:
                    work = provider.prepare(missing, flat=flat)
                    return scheduler.assign(provider.peer, tuple(missing), work, now)
        return await self._duplicate_stalled(provider, now)

    async def _choose(self, provider: Provider) -> tuple[Sequence[CID], bool]:
        """Unassigned parts for a provider, and whether to fetch them without what is below them."""
        scheduler = self._scheduler
        offered = await provider.held(scheduler.unassigned)
        unassigned = set(scheduler.unassigned)  # others may have been faster
        free = [cid for cid in offered if cid in unassigned]
        alone = len(self._active) == 1
        nodes: list[CID] = []
        if provider.supports_flat and not (alone and provider.whole):
            nodes = [cid for cid in free if cid.codec != RAW][:MAX_FLAT_BLOCKS]
        if nodes and len(unassigned) < MAX_UNASSIGNED:
            return nodes, True
        return scheduler.next_parts(provider.peer, free, MAX_WANTED, alone=alone), False

    async def _duplicate_stalled(self, provider: Provider, now: float) -> Assignment[PartFetch] | None:
        stalled = self._scheduler.stalled(provider.peer, now)
        if stalled is None:
            return None
        rest = await provider.held(stalled.work.rest()[:MAX_WANTED])
        still = self._scheduler.may_duplicate(provider.peer, stalled, trio.current_time())
        if not rest or not still or set(rest) != set(stalled.work.rest()):
            return None
        work = provider.prepare(rest, flat=isinstance(stalled.work, FlatWalk))
        return self._scheduler.duplicate(provider.peer, stalled, tuple(rest), work, now)

    async def _fetch(self, provider: Provider, assignment: Assignment[PartFetch]) -> None:
        """Raises PeerFault when the provider is of no more use, ContentError."""
        work, scheduler = assignment.work, self._scheduler

        def on_bytes(size: int) -> None:
            self._received.add(size)
            assignment.add_bytes(size, trio.current_time())

        with trio.CancelScope() as scope:
            assignment.cancel = scope.cancel
            try:
                try:
                    await provider.fetch(assignment, on_bytes)
                    self._received.check()
                finally:
                    if isinstance(work, FlatWalk):
                        scheduler.add(work.found)
            except PeerFault as fault:
                scheduler.failed(assignment)
                if isinstance(work, FlatWalk) and fault.invalid:
                    provider.supports_flat = False  # it may be older than flat requests
                elif fault.invalid or not provider.note_unavailable(assignment):
                    raise
                return
            except BaseException:
                scheduler.failed(assignment)
                raise
            scheduler.completed(assignment, trio.current_time())
