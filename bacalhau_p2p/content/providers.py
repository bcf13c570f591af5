"""Who has the content of a CID, and having it from whoever does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import trio

from bacalhau_p2p.content.blockstore import BlockStore
from bacalhau_p2p.content.cid import CID
from bacalhau_p2p.content.fetching import BUSY_PAUSES, PeerFault, Requests, Transfer
from bacalhau_p2p.content.wire import MAX_WANTED, Operation, Request, Status
from bacalhau_p2p.errors import ContentError, ContentNotFound, InvalidContent
from bacalhau_p2p.model.base import PeerID

_T = TypeVar("_T")


class Fallback(Protocol):
    """Another protocol, for peers that do not speak ours. Both raise PeerFault."""

    async def has(self, peer: PeerID, cid: CID) -> bool:
        """Whether a peer has the root at least."""
        ...

    async def fetch(self, peer: PeerID, cid: CID) -> None:
        """Bring what is missing below `cid` into the block store; may raise ContentError too."""
        ...


class Fetch:
    """One DAG being fetched."""

    def __init__(
        self,
        blocks: BlockStore,
        requests: Requests,
        threads: trio.CapacityLimiter,
        cid: CID,
        providers: Sequence[PeerID],
        find: float,
        fallback: Fallback | None = None,
    ) -> None:
        self._blocks = blocks
        self._requests = requests
        self._threads = threads
        self._transfer = Transfer(blocks, requests, threads)
        self._cid = cid
        self._providers = tuple(dict.fromkeys(providers))
        self._find = find
        self._fallback = fallback
        self._strangers: set[PeerID] = set()
        self._answered = 0
        self._faults: dict[PeerID, PeerFault] = {}

    async def run(self) -> None:
        """Raises ContentNotFound, InvalidContent, ContentTooLarge, ContentError."""
        tell, found = trio.open_memory_channel[PeerID](math.inf)
        outcome: ContentError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_everybody, tell)
            try:
                outcome = await self._take_from_any(found)
            except ContentError as error:  # carried out of the nursery, which would wrap it
                outcome = error
            nursery.cancel_scope.cancel()
        if outcome is not None:
            raise outcome

    # --- who has it

    async def _ask_everybody(self, tell: trio.MemorySendChannel[PeerID]) -> None:
        async with tell:
            with trio.move_on_after(self._find):
                async with trio.open_nursery() as nursery:
                    for peer in self._providers:
                        nursery.start_soon(self._ask, peer, tell)

    async def _ask(self, peer: PeerID, tell: trio.MemorySendChannel[PeerID]) -> None:
        request = Request(operation=Operation.HAVE, cid=self._cid)
        try:
            for pause in BUSY_PAUSES:
                async with self._requests.ask(peer, request) as (answer, receive):
                    status = answer.status
                    await receive()  # its end of stream: so both ends close, and nobody resets
                if status is not Status.BUSY:
                    break
                await trio.sleep(pause)
        except PeerFault:
            await self._ask_stranger(peer, tell)
            return
        self._answered += 1
        if status is Status.OK:
            tell.send_nowait(peer)

    async def _ask_stranger(self, peer: PeerID, tell: trio.MemorySendChannel[PeerID]) -> None:
        if self._fallback is None:
            return
        try:
            has = await self._fallback.has(peer, self._cid)
        except PeerFault:
            return
        self._answered += 1
        if has:
            self._strangers.add(peer)
            tell.send_nowait(peer)

    # --- taking it

    async def _take_from_any(self, found: trio.MemoryReceiveChannel[PeerID]) -> ContentError | None:
        """None when the DAG is complete, else why nobody could give it."""
        async for peer in found:
            try:
                await self._take_from(peer)
            except PeerFault as fault:
                self._faults[peer] = fault
            else:
                return None
        return self._failure()

    def _failure(self) -> ContentError:
        for peer, fault in self._faults.items():
            if fault.invalid:
                return InvalidContent(f"{self._cid} cannot be had: peer {peer} sent wrong data: {fault}")
        for peer, fault in self._faults.items():
            return ContentNotFound(f"{self._cid} could not be fetched from peer {peer}: {fault}")
        asked, silent = len(self._providers), len(self._providers) - self._answered
        if not asked:
            return ContentNotFound(f"{self._cid} is not here, and there is no peer to ask for it")
        peers = "1 peer was" if asked == 1 else f"{asked} peers were"
        note = f", {silent} did not answer within {self._find:g} s" if silent else ""
        return ContentNotFound(f"no peer has {self._cid}: {peers} asked{note}")

    async def _take_from(self, peer: PeerID) -> None:
        """Ask for what is missing until nothing is. Raises PeerFault, ContentError."""
        if self._fallback is not None and peer in self._strangers:
            await self._fallback.fetch(peer, self._cid)
            if not (await self._thread(self._blocks.survey, self._cid)).complete:
                raise ContentError(f"the blocks of {self._cid} vanish from the store as they are written")
            return
        before: tuple[CID, ...] = ()
        while True:
            survey = await self._thread(lambda: self._blocks.survey(self._cid, missing_limit=MAX_WANTED))
            if survey.complete:
                return
            if survey.missing == before:
                raise ContentError(f"the blocks of {self._cid} vanish from the store as they are written")
            before = survey.missing
            await self._transfer.take(peer, self._cid, before)

    async def _thread(self, call: Callable[..., _T], *args: object) -> _T:
        return await trio.to_thread.run_sync(call, *args, limiter=self._threads)
