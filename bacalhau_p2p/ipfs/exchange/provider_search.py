"""Finds the providers of one DAG: asks the known peers, then those that the provider finder names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.fetch_report import FetchReport, Outcome
from bacalhau_p2p.ipfs.exchange.interface import FallbackProtocol, ProviderFinder
from bacalhau_p2p.ipfs.exchange.providers import FallbackProvider, Provider
from bacalhau_p2p.ipfs.exchange.requests import Requests
from bacalhau_p2p.ipfs.exchange.wire import HOLDS_ROOT, Status
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.events import BroadcastEvent

FIRST_ALONE = 0.1
"""Seconds that the first peer has to answer before the other known peers are asked, too: it is probably the
one that has the content."""
SMALL_WITHIN = 0.5
"""Seconds in which a small DAG comes from one peer that has all of it. Then no other is asked."""
HEAD_START = 2.0
"""Seconds that the known peers have to answer before the finder is asked as well."""

_EMPTY_HANDED = {
    Status.MISSING: Outcome.MISSING,
    Status.BUSY: Outcome.BUSY,
    Status.REFUSED: Outcome.REFUSED,
}


class ProviderSearch:
    """The providers of one DAG that were found so far, and the search for more."""

    def __init__(
        self,
        cid: CID,
        peers: Sequence[PeerID],
        requests: Requests,
        report: FetchReport,
        *,
        make_provider: Callable[[PeerID, bool], Provider],
        finder: ProviderFinder | None = None,
        fallback: FallbackProtocol | None = None,
    ) -> None:
        """`make_provider(peer, whole)` makes the provider for a peer that speaks our protocol."""
        self.providers: list[Provider] = []
        self.named: list[PeerID] = []
        """Peers that the finder named."""
        self.active = True
        """Whether more providers may be found without a further search."""
        self.changed = BroadcastEvent()
        """Fires when a provider was found, and when the search ends."""
        self._cid = cid
        self._peers = tuple(dict.fromkeys(peers))
        self._requests = requests
        self._report = report
        self._make_provider = make_provider
        self._finder = finder
        self._fallback = fallback

    @property
    def exhausted(self) -> bool:
        """Whether there is nobody left to ask."""
        return not self.active and self._finder is None

    async def run(self, timeout: float) -> None:
        """Ask the known peers, and the finder too unless one of them soon says that it has the whole DAG."""
        with self._searching(timeout):
            async with trio.open_nursery() as nursery:
                asked = trio.Event()
                nursery.start_soon(self._ask_all, asked)
                with trio.move_on_after(HEAD_START):
                    await asked.wait()
                if not any(provider.whole for provider in self.providers):
                    await self._ask_finder()

    async def extend(self, timeout: float) -> None:
        """Ask the finder after all, because the providers that were found have failed."""
        with self._searching(timeout):
            await self._ask_finder()

    @contextmanager
    def _searching(self, timeout: float) -> Iterator[None]:
        self.active = True
        try:
            with trio.move_on_after(timeout):
                yield
        finally:
            self.active = False
            self.changed.fire()

    async def _ask_all(self, asked: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            for peer in self._peers[:1]:
                answered = trio.Event()
                nursery.start_soon(self._ask, peer, answered)
                with trio.move_on_after(FIRST_ALONE):
                    await answered.wait()
                if any(provider.whole for provider in self.providers):
                    await trio.sleep(SMALL_WITHIN)
            for peer in self._peers[1:]:
                nursery.start_soon(self._ask, peer)
        asked.set()

    async def _ask_finder(self) -> None:
        finder, self._finder = self._finder, None
        if finder is None:
            return
        self._report.finder = "the search for other providers timed out"
        async with trio.open_nursery() as nursery:
            known = set(self._peers)

            def on_found(peer: PeerID) -> None:
                if peer not in known:
                    known.add(peer)
                    self.named.append(peer)
                    nursery.start_soon(self._ask, peer)

            asked = await finder.find_providers(self._cid, on_found)
        self._report.finder = f"{asked} found no other provider"

    async def _ask(self, peer: PeerID, answered: trio.Event | None = None) -> None:
        try:
            await self._question(peer)
        finally:
            if answered is not None:
                answered.set()

    async def _question(self, peer: PeerID) -> None:
        self._report.asking(peer)
        try:
            answer = await self._requests.have(peer, self._cid, on_busy=lambda: self._report.busy(peer))
        except PeerFault as fault:
            await self._ask_by_fallback(peer, fault)
            return
        whole = answer.status is Status.OK
        if whole or HOLDS_ROOT in answer.holds:
            self._found(self._make_provider(peer, whole))
        else:
            self._report.answered(peer, _EMPTY_HANDED[answer.status])

    async def _ask_by_fallback(self, peer: PeerID, fault: PeerFault) -> None:
        if self._fallback is None:
            self._report.answered(peer, Outcome.of(fault))
            return
        try:
            has = await self._fallback.has(peer, self._cid)
        except PeerFault as second:
            self._report.answered(peer, Outcome.of(fault, second))
            return
        if has:
            self._found(FallbackProvider(peer, self._cid, self._fallback))
        else:
            self._report.answered(peer, Outcome.MISSING)

    def _found(self, provider: Provider) -> None:
        self._report.answered(provider.peer, Outcome.HAS)
        self.providers.append(provider)
        self.changed.fire()
