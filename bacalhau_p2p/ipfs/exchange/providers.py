"""Who has the content of a CID, and having it from all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import trio

from bacalhau_p2p.errors import ContentError, ContentNotFound, InvalidContent
from bacalhau_p2p.ipfs.exchange.answers import Answers, Came
from bacalhau_p2p.ipfs.exchange.expanding import Expansion, sift
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.fetching import BUSY_PAUSES, Receive, Requests, Transfer
from bacalhau_p2p.ipfs.exchange.shares import Board, Share, Work
from bacalhau_p2p.ipfs.exchange.wire import (
    BLOCK,
    MAX_WANTED,
    NOTHING,
    WHOLE,
    Answer,
    Operation,
    Request,
    Status,
)
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.traversal import Walk
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID

HEAD_START = 2.0
"""Seconds that the peers at hand have to answer before the finder is asked too."""
WEB_SHARE = 5.0
"""Seconds of the search that are kept for web servers, or a third of it when that is less."""
LOOK_EVERY = 0.05
"""Seconds between two looks of an idle provider at what it could take over."""
MOST_AT_ONCE = 8
"""Providers of one DAG that are fetched from at one time."""
MOST_FROM_WEB = 16
"""Parts of a DAG that are asked of a web server one by one; where more are missing, it is asked for all."""
MOST_NODES = 256
"""Blocks with links that are fetched together without what is below them."""
MOST_POOLED = 20_000
"""Parts that wait to be shared out; with more, leaves are fetched before further blocks with links."""
MOST_PARTS = 256
"""Parts of a DAG that a provider of some of it is asked about in one question."""

_T = TypeVar("_T")
Arrived = Callable[[int], None]


class Errand(Work, Protocol):
    """A fetch over another protocol."""

    @property
    def lacking(self) -> Collection[CID]:
        """What the peer turned out not to have."""
        ...

    async def run(self, peer: PeerID, cid: CID, arrived: Arrived) -> None:
        """Bring what is missing, which are parts of `cid`, into the block store.

        Raises PeerFault, also at last when something was lacking; ContentError.
        """
        ...


class Fallback(Protocol):
    """Another protocol, for peers that do not speak ours."""

    async def has(self, peer: PeerID, cid: CID) -> bool:
        """Whether a peer has the root at least. Raises PeerFault."""
        ...

    def begin(self, wanted: Sequence[CID]) -> Errand:
        """A fetch of these, which does not run yet."""
        ...


class Finder(Protocol):
    """Somebody who knows who has what, to be asked when no peer at hand has it."""

    async def find_providers(self, cid: CID, on_found: Callable[[PeerID], None]) -> str:
        """Call `on_found` for each peer that may have the content; returns what was asked:
        `DHT lookup (3 nodes)`."""
        ...


class Web(Protocol):
    """A server that gives whole DAGs as CARs over HTTP, for when no stream to a peer can be had."""

    @property
    def name(self) -> str: ...

    def open(self, cid: CID, within: float) -> AbstractAsyncContextManager[Receive]:
        """The CAR of a DAG, piece by piece, b"" at its end; it must begin within so many seconds.

        Raises PeerFault, inside the block too.
        """
        ...


WebOf = Callable[[Sequence[PeerID]], Sequence[Web]]
"""The web servers to ask, first those that belong to these peers."""


_Work = Walk | Errand

_EMPTY_HANDED = {Status.MISSING: Came.NOTHING, Status.BUSY: Came.BUSY, Status.REFUSED: Came.REFUSED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where to look for content: `peers` first, then whom the finder names, then web servers."""

    peers: Sequence[PeerID] = ()
    finder: Finder | None = None
    web: WebOf = lambda peers: ()


@dataclass(eq=False, slots=True)
class _Provider:
    """A peer that has some of it. `stranger`: only over the fallback."""

    peer: PeerID
    whole: bool
    stranger: bool = False
    flat: bool = True
    """Whether it gives blocks without what is below them, as far as is known."""
    holds: dict[CID, int] = field(default_factory=dict)
    """What it said of parts, where it has not the whole."""


class Fetch:
    """One DAG being fetched."""

    def __init__(
        self,
        blocks: BlockStore,
        requests: Requests,
        threads: trio.CapacityLimiter,
        cid: CID,
        sources: Sources,
        find: float,
        fallback: Fallback | None = None,
    ) -> None:
        """`find`: seconds within which somebody must say that he has it."""
        self._blocks = blocks
        self._requests = requests
        self._threads = threads
        self._transfer = Transfer(blocks, requests, threads)
        self._cid = cid
        self._peers = tuple(dict.fromkeys(sources.peers))
        self._finder = sources.finder
        self._web = sources.web
        self._find = find
        self._fallback = fallback
        self._answers = Answers()
        self._searching = True
        self._bytes = 0
        self._finder_said = ""
        self._named: list[PeerID] = []
        self._web_said: list[str] = []
        self._providers: list[_Provider] = []
        self._found = trio.Event()
        self._faults: dict[str, PeerFault] = {}

    async def run(self) -> None:
        """Raises ContentNotFound, InvalidContent, ContentTooLarge, ContentError."""
        outcome: ContentError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._search)
            try:
                outcome = await self._fetch()
            except ContentError as error:  # carried out of the nursery, which would wrap it
                outcome = error
            nursery.cancel_scope.cancel()
        if outcome is not None:
            raise outcome

    # --- who has it

    async def _search(self) -> None:
        """Ask the peers at hand, and the finder too when none of them says soon that it has all of it."""
        find = self._find - (min(WEB_SHARE, self._find / 3) if self._web(()) else 0)
        try:
            with trio.move_on_after(find):
                async with trio.open_nursery() as nursery:
                    asked = trio.Event()
                    nursery.start_soon(self._ask_all, asked)
                    with trio.move_on_after(HEAD_START):
                        await asked.wait()
                    if not any(provider.whole for provider in self._providers):
                        await self._ask_finder()
        finally:
            self._searching = False
            self._changed()

    async def _search_again(self) -> None:
        """Ask the finder after all: those who were found have failed."""
        try:
            with trio.move_on_after(self._find):
                await self._ask_finder()
        finally:
            self._searching = False
            self._changed()

    async def _ask_finder(self) -> None:
        finder, self._finder = self._finder, None
        if finder is None:
            return
        self._finder_said = "DHT lookup timed out"
        async with trio.open_nursery() as nursery:
            known = set(self._peers)

            def tell(peer: PeerID) -> None:
                if peer not in known:
                    known.add(peer)
                    self._named.append(peer)
                    nursery.start_soon(self._ask, peer)

            said = await finder.find_providers(self._cid, tell)
        self._finder_said = f"{said} found no other provider"

    async def _ask_all(self, asked: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            for peer in self._peers:
                nursery.start_soon(self._ask, peer)
        asked.set()

    async def _ask(self, peer: PeerID) -> None:
        self._answers.wait_for(peer)
        try:
            answer = await self._have(peer)
        except PeerFault as fault:
            await self._ask_stranger(peer, fault)
            return
        if answer.status is Status.OK or BLOCK in answer.holds:
            self._answers[peer] = Came.HAS
            self._add(_Provider(peer, answer.status is Status.OK))
        else:
            self._answers[peer] = _EMPTY_HANDED[answer.status]

    async def _ask_stranger(self, peer: PeerID, fault: PeerFault) -> None:
        if self._fallback is None:
            self._answers[peer] = Came.of(fault)
            return
        try:
            has = await self._fallback.has(peer, self._cid)
        except PeerFault as another:
            self._answers[peer] = Came.of(fault, another)
            return
        self._answers[peer] = Came.HAS if has else Came.NOTHING
        if has:
            self._add(_Provider(peer, True, stranger=True))

    async def _have(self, peer: PeerID, wanted: tuple[CID, ...] = ()) -> Answer:
        """What a peer says that it has. Raises PeerFault."""
        request = Request(operation=Operation.HAVE, cid=self._cid, wanted=wanted)
        for pause in BUSY_PAUSES:
            async with self._requests.ask(peer, request) as (answer, receive):
                await receive()  # its end of stream: so both ends close, and nobody resets
            if answer.status is not Status.BUSY:
                break
            self._answers.busy(peer)
            await trio.sleep(pause)
        return answer

    def _add(self, provider: _Provider) -> None:
        self._providers.append(provider)
        self._changed()

    def _changed(self) -> None:
        """Whoever waits should look again."""
        self._found.set()
        self._found = trio.Event()

    # --- taking it

    async def _fetch(self) -> ContentError | None:
        """None when the DAG is complete, else why nobody could give it."""
        before: tuple[CID, ...] = ()
        while True:
            stat = await self._thread(lambda: self._blocks.dag_stat(self._cid, missing_limit=MAX_WANTED))
            if stat.complete:
                return None
            if stat.missing == before:
                return ContentError(f"the blocks of {self._cid} vanish from the store as they are written")
            board = Board[_Work](stat.missing)
            await self._share_out(board)
            if not board.finished and not await self._take_from_web(board):
                return self._failure()
            before = () if board.forgotten else stat.missing

    async def _share_out(self, board: Board[_Work]) -> None:
        """Have all that is on the board from whoever is found; what is left on it nobody could give."""
        failure: ContentError | None = None
        begun, working, idle = set[_Provider](), set[_Provider](), set[_Provider]()

        async def work(provider: _Provider) -> None:
            nonlocal failure
            try:
                await self._work(provider, board, working, idle)
            except PeerFault as fault:
                self._faults[f"peer {provider.peer}"] = fault
                self._providers.remove(provider)
            except ContentError as error:  # carried out of the nursery, which would wrap it
                failure = error
                nursery.cancel_scope.cancel()
            finally:
                working.discard(provider)
                idle.discard(provider)
                self._changed()

        async with trio.open_nursery() as nursery:
            while not board.finished and failure is None:
                waiting = self._found
                for provider in list(self._providers):
                    if provider not in begun and len(working) < MOST_AT_ONCE:
                        begun.add(provider)
                        working.add(provider)
                        nursery.start_soon(work, provider)
                if not working and not self._searching:
                    if self._finder is None:
                        break
                    self._searching = True
                    nursery.start_soon(self._search_again)
                await waiting.wait()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _work(
        self, provider: _Provider, board: Board[_Work], working: set[_Provider], idle: set[_Provider]
    ) -> None:
        """Take share after share of the board from one provider, until there is nothing that it could give.

        Raises PeerFault when it failed us, ContentError for what the content is.
        """
        while not board.finished:
            alone = len(working) == 1
            share = await self._next_share(provider, board, alone=alone)
            if share is None:
                idle.add(provider)
                if idle >= working and not board.busy and not self._searching:
                    return  # nobody has what is left
                waiting = self._found
                with trio.move_on_after(LOOK_EVERY):
                    await waiting.wait()
                continue
            idle.clear()
            await self._take(provider, board, share)
            self._changed()

    async def _next_share(
        self, provider: _Provider, board: Board[_Work], *, alone: bool
    ) -> Share[_Work] | None:
        """What this provider should fetch next: of what nobody is at, else of what another has too much of,
        else what another does not get on with."""
        now = trio.current_time()
        while board.pool or board.steal(provider.peer, now):
            offered = await self._held(provider, board.pool)
            taken = set(board.pool)  # others were quicker, perhaps
            free = [cid for cid in offered if cid in taken]
            flat = provider.flat and not provider.stranger and not (alone and provider.whole)
            nodes = [cid for cid in free if cid.codec != RAW][:MOST_NODES] if flat else []
            flat = bool(nodes) and len(taken) < MOST_POOLED
            wanted = tuple(nodes) if flat else board.unit(provider.peer, free, MAX_WANTED, alone=alone)
            if not wanted:
                break
            with board.reserving(wanted):
                missing, found = await self._thread(lambda: sift(wanted, self._blocks, flat=flat))  # noqa: B023
                board.add(found)
                self._blocks.limits.check_blocks(len(board))
                if missing:
                    work = self._work_on(provider, missing, flat=flat)
                    return board.take(provider.peer, tuple(missing), work, now)
        stalled = board.stalled(provider.peer, now)
        if stalled is None:
            return None
        rest = tuple(await self._held(provider, stalled.work.rest()[:MAX_WANTED]))
        if not rest or stalled.group or set(rest) != set(stalled.work.rest()):
            return None
        work = self._work_on(provider, rest, flat=isinstance(stalled.work, Expansion))
        return board.double(provider.peer, stalled, rest, work, now)

    def _work_on(self, provider: _Provider, wanted: Sequence[CID], *, flat: bool) -> _Work:
        if provider.stranger and self._fallback is not None:
            return self._fallback.begin(wanted)
        if flat:
            return Expansion(wanted, self._blocks.limits)
        return Walk(list(wanted), self._blocks.limits)

    async def _held(self, provider: _Provider, pool: Sequence[CID]) -> list[CID]:
        """Those that a provider has, as far as it is known to lack some. What it has only the first block of
        comes last, and only one of it: its stream will break off. Raises PeerFault."""
        if provider.whole and not provider.holds:
            return list(pool)
        unknown = [cid for cid in pool if cid not in provider.holds][:MOST_PARTS]
        if unknown and not provider.whole:
            answer = await self._have(provider.peer, tuple(unknown))
            said = answer.holds.ljust(len(unknown), bytes((NOTHING,)))
            provider.holds.update(zip(unknown, said, strict=False))
        known = {cid: provider.holds.get(cid, WHOLE) for cid in pool}
        held = [
            cid
            for cid, what in known.items()
            if what == WHOLE or (what == BLOCK and provider.flat and cid.codec != RAW)
        ]
        broken = [cid for cid, what in known.items() if what == BLOCK]
        return held or broken[:1]

    async def _take(self, provider: _Provider, board: Board[_Work], share: Share[_Work]) -> None:
        """Bring a share. Raises PeerFault when the provider is of no more use, ContentError."""
        with trio.CancelScope() as scope:
            share.stop = scope.cancel
            try:
                try:
                    await self._transfer_share(provider, share)
                finally:
                    if isinstance(share.work, Expansion):
                        board.add(share.work.found)
            except PeerFault as fault:
                board.failed(share)
                if isinstance(share.work, Expansion) and fault.invalid:
                    provider.flat = False  # perhaps it does not know how to
                elif fault.invalid or not self._lacks(provider, share):
                    raise
                return
            except BaseException:
                board.failed(share)
                raise
            board.done(share, trio.current_time())

    def _lacks(self, provider: _Provider, share: Share[_Work]) -> bool:
        """Note what a provider turned out not to have; whether that is why a share ended too soon."""
        if not isinstance(share.work, Walk):
            lacking = list(share.work.lacking)
        elif share.bytes and BLOCK in map(provider.holds.get, share.wanted):
            lacking = share.work.rest()[:1]
        else:
            lacking = []
        provider.holds.update(dict.fromkeys(lacking, NOTHING))
        return bool(lacking)

    async def _transfer_share(self, provider: _Provider, share: Share[_Work]) -> None:
        def arrived(size: int) -> None:
            self._bytes += size
            share.arrived(size, trio.current_time())

        if isinstance(share.work, Walk):
            await self._transfer.take(provider.peer, self._cid, share.wanted, share.work, arrived)
        else:
            await share.work.run(provider.peer, self._cid, arrived)
        self._blocks.limits.check_transfer(self._bytes)  # within one transfer, that is checked already

    # --- over the web

    async def _take_from_web(self, board: Board[_Work]) -> bool:
        """Whether a web server gave what no peer could."""
        within = min(WEB_SHARE, self._find / 3)
        for server in self._web((*self._named, *self._peers)):
            wanted = board.pool if len(board.pool) <= MOST_FROM_WEB else [self._cid]
            try:
                for cid in wanted:
                    async with server.open(cid, within) as receive:
                        await self._transfer.store(receive, Walk([cid], self._blocks.limits))
            except PeerFault as fault:
                if fault.invalid:
                    self._faults[server.name] = fault
                self._web_said.append(f"{server.name}: {fault}")
            else:
                return True
        return False

    # --- when nobody could

    def _failure(self) -> ContentError:
        for name, fault in self._faults.items():
            if fault.invalid:
                return InvalidContent(f"{self._cid} cannot be had: {name} sent wrong data: {fault}")
        told = self._told()
        for name, fault in self._faults.items():
            return ContentNotFound(f"{self._cid} could not be fetched from {name}: {fault} ({told})")
        if not self._answers and not self._finder_said and not self._web_said:
            return ContentNotFound(f"{self._cid} is not here, and there is no peer to ask for it")
        return ContentNotFound(f"no peer has {self._cid}: {told}")

    def _told(self) -> str:
        """What was asked, in words."""
        parts = [str(self._answers)]
        if self._providers:
            parts.append(f"{len(self._providers)} of them have parts of it")
        if self._finder_said:
            parts.append(self._finder_said)
        return "; ".join([*parts, *self._web_said])

    async def _thread(self, call: Callable[..., _T], *args: object) -> _T:
        return await trio.to_thread.run_sync(call, *args, limiter=self._threads)
