"""Everything a node does with content, behind one door: add, find, fetch, write out, pin."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import trio

from bacalhau_p2p.errors import ContentError, ContentNotFound, InvalidContent
from bacalhau_p2p.ipfs.exchange.dag_size import AskForBlock, claimed_size, fetch_root_block, stored_size
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.interface import Gateway, ProviderFinder, Sources
from bacalhau_p2p.ipfs.files.export import Existing, Exported, export
from bacalhau_p2p.ipfs.files.following import Follower, following
from bacalhau_p2p.ipfs.files.importer import Added, Symlinks, build, is_small
from bacalhau_p2p.ipfs.files.reader import Place, own_blocks, read_file, resolve
from bacalhau_p2p.ipfs.files.tar import write_tar
from bacalhau_p2p.ipfs.format.car import CarReader, batches, header, section, write_car
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.dag_stat import DagStat, require_complete
from bacalhau_p2p.ipfs.format.traversal import folder_entries
from bacalhau_p2p.ipfs.format.unixfs import Folder, Node, Shard
from bacalhau_p2p.ipfs.store.block_store import BlockStore, Collected, Pin
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.logs import get_logger

STREAM_CHUNK = 512 * 1024
"""Bytes of the chunks in which CAR and TAR streams are given, the last excepted."""

Scope = Literal["all", "entity", "block"]
"""How much of a DAG a CAR has: everything; one file, or one folder without what is in it; one block."""

LOOK_EVERY = 60.0
"""Seconds between two looks at how much of the quota is used."""

log = get_logger(__name__)

_GULP = 512 * 1024
"""Bytes of what is added that are checked and stored at one time."""

_TOGETHER = 200
"""Blocks that are stored at one time, however small."""

_T = TypeVar("_T")


class Content:
    """The content of one node.

    Blocking work runs in threads of a limiter of its own. Cancelled: `add`, `fetch` and `import_car`
    leave whole blocks behind that nobody has pinned, `export` leaves nothing.
    """

    def __init__(
        self,
        blocks: BlockStore,
        exchange: Exchange,
        candidates: Callable[[], Sequence[PeerID]],
        *,
        ask_for_block: AskForBlock | None = None,
        finder: ProviderFinder | None = None,
        web: Callable[[Sequence[PeerID]], Sequence[Gateway]] = lambda peers: (),
        pinned: Callable[[CID, str], None] = lambda cid, owner: None,
        power_safe: bool = True,
        threads: trio.CapacityLimiter | None = None,
    ) -> None:
        """`candidates` gives the peers to ask when a CID is wanted: those connected now. `ask_for_block` asks
        one of them for a single block; without it nobody is asked what something weighs. `finder` and `web`
        are turned to when none of the peers gives a CID. `pinned` hears of every pin and its owner. Not
        `power_safe`: `secure` does nothing."""
        self._blocks = blocks
        self._exchange = exchange
        self._candidates = candidates
        self._ask_for_block = ask_for_block
        self._finder = finder
        self._web = web
        self._pinned = pinned
        self._power_safe = power_safe
        self._threads = threads or trio.CapacityLimiter(4)

    async def add(
        self, path: Path, *, pin_owner: str, hidden: bool = True, symlinks: Symlinks = "keep"
    ) -> Added:
        """Store the file or folder at `path` and pin it for `pin_owner`.

        Unlike `ipfs add -r`, hidden files are taken along: a result is all that a job left.
        Raises ContentError, ContentTooLarge.
        """

        def work(checkpoint: Callable[[], None]) -> Added:
            with self._blocks.batch() as batch:
                waiting: list[tuple[CID, bytes]] = []
                size = 0

                def sink(cid: CID, block: bytes) -> None:
                    nonlocal size
                    checkpoint()
                    waiting.append((cid, block))
                    size += len(block)
                    if len(waiting) >= _TOGETHER or size >= _GULP:
                        self._blocks.put_all_verified(waiting, batch)
                        waiting.clear()
                        size = 0

                added = build(path, sink, hidden=hidden, symlinks=symlinks, limits=self._blocks.limits)
                self._blocks.put_all_verified(waiting, batch)
                self._blocks.pin(added.cid, pin_owner)
            return added

        if self._blocks.needs_collection or not is_small(path):
            added = await self._thread(work, trio.from_thread.check_cancelled)
        else:
            await trio.lowlevel.checkpoint()
            added = work(lambda: None)
            self._blocks.has_all(added.cid)  # what it finds is remembered, and will be asked for
        self._pinned(added.cid, pin_owner)
        return added

    async def has(self, cid: CID) -> bool:
        """Whether the whole DAG below `cid` is in this node's store."""
        if self._blocks.known_complete(cid):
            await trio.lowlevel.checkpoint()
            return True
        return await self._thread(self._blocks.has_all, cid)

    async def size(self, cid: CID) -> int:
        """Bytes of all files below `cid`, as they would be written out.

        Raises ContentNotFound when not all of it is in this node's store, InvalidContent, ContentTooLarge.
        """
        return (await self._complete_stat(cid)).bytes

    async def weight(self, cid: CID, *, hints: Sequence[PeerID] = ()) -> int | None:
        """About the bytes of all files below `cid`, as its root block claims, which `hints` or any peer
        that is connected may have; None when nobody gives it. The caller bounds the time.

        Raises InvalidContent, ContentTooLarge.
        """
        cid.require_fetchable()
        block = await self._thread(self._blocks.get, cid)
        if block is None and self._ask_for_block is not None:
            block = await fetch_root_block(cid, (*hints, *self._candidates()), self._ask_for_block)
        return None if block is None else claimed_size(cid, block, self._blocks.limits)

    async def held(self, cid: CID) -> int:
        """Bytes of the files below `cid` whose blocks are in this node's store, be it a part of them.

        Raises InvalidContent, ContentTooLarge.
        """
        cid.require_fetchable()
        limits, check = self._blocks.limits, trio.from_thread.check_cancelled
        return await self._thread(stored_size, cid, self._blocks, limits, check)

    async def _complete_stat(self, cid: CID) -> DagStat:
        cid.require_fetchable()
        stat = await self._thread(lambda: self._blocks.dag_stat(cid, missing_limit=1))
        return require_complete(cid, self._blocks, self._blocks.limits, stat)

    async def fetch(
        self,
        cid: CID,
        *,
        hints: Sequence[PeerID] = (),
        pin_owner: str | None = None,
        expires: float | None = None,
        timeout: float | None = 15.0,
    ) -> None:
        """Have the whole DAG below `cid` in the store, from `hints` or any peer that is connected.

        Without a pin it stays until room is wanted: hold it as long as it is used. `timeout` is the
        seconds within which somebody must be found who has it; the transfer may take as long as it moves.
        Raises ContentNotFound, InvalidContent, ContentTooLarge.
        """
        with self._blocks.holding(cid):
            peers = (*hints, *self._candidates())
            sources = Sources(peers=peers, finder=self._finder, gateways=self._web)
            await self._exchange.fetch(cid, sources, timeout=timeout)
            if pin_owner is not None:
                await self.pin(cid, pin_owner, expires)

    def following(
        self, cid: CID, *, hints: Sequence[PeerID] = (), timeout: float | None = 15.0
    ) -> AbstractAsyncContextManager[Follower]:
        """A block in which the DAG below `cid` is fetched, as by `fetch`, and given as a CARv1 meanwhile."""
        return following(
            cid, self._blocks, lambda: self.fetch(cid, hints=hints, timeout=timeout), self._threads
        )

    def holding(self, cid: CID) -> AbstractContextManager[None]:
        """A block during which nothing below `cid` is collected."""
        return self._blocks.holding(cid)

    async def export(
        self,
        cid: CID,
        target: Path,
        *,
        symlinks: Literal["skip", "keep"] = "skip",
        existing: Existing = "refuse",
    ) -> Exported:
        """Write the file or folder below `cid`, which the store must have, to `target`.

        Raises as `content.export.export`.
        """

        def work(stat: DagStat) -> Exported:
            return export(
                cid,
                target,
                self._blocks,
                limits=self._blocks.limits,
                symlinks=symlinks,
                existing=existing,
                checkpoint=trio.from_thread.check_cancelled,
                stat=stat,
            )

        with self._blocks.holding(cid), self._doubting():
            return await self._thread(work, await self._complete_stat(cid))

    async def car(self, cid: CID) -> AsyncGenerator[bytes, None]:
        """The DAG below `cid` as a CARv1, depth first.

        Raises ContentNotFound before the first byte when not all of it is in the store.
        """
        async for chunk in self.entity(await self.resolve(cid), "all"):
            yield chunk

    async def tar(self, cid: CID, *, name: str = "") -> AsyncGenerator[bytes, None]:
        """The DAG below `cid` as a TAR; see `content.tar.write_tar`."""
        with self._blocks.holding(cid):
            stat = await self._complete_stat(cid)
            pieces = write_tar(cid, self._blocks, name=name, limits=self._blocks.limits, stat=stat)
            async for chunk in self._stream(pieces):
                yield chunk

    async def resolve(self, cid: CID, names: tuple[str, ...] = ()) -> Place:
        """What a path below `cid` leads to, from the blocks of the store.

        Raises ContentNotFound, InvalidContent.
        """
        return await self._thread(resolve, cid, names, self._blocks, self._blocks.limits)

    async def entries(self, place: Place) -> list[str]:
        """The names in a folder, sorted; none for anything else."""
        node = place.node
        if not isinstance(node, Folder | Shard):
            return []

        def load(cid: CID) -> Node | None:
            return resolve(cid, (), self._blocks, self._blocks.limits).node

        return await self._thread(
            lambda: sorted(entry.name for entry in folder_entries(place.cid, node, load))
        )

    async def read(self, cid: CID, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to `end` of a file. Raises as `reading.read_file`."""
        with self._blocks.holding(cid):
            pieces = await self._thread(read_file, cid, self._blocks, start, end, self._blocks.limits)
            async for chunk in self._stream(pieces):
                yield chunk

    async def entity(self, place: Place, scope: Scope) -> AsyncGenerator[bytes, None]:
        """A CARv1 of the blocks that lead to a place, then of those that `scope` wants of it, depth first.

        Its header names the place. Raises ContentNotFound before the first byte.
        """
        with self._blocks.holding(place.cid, *place.trail[:1]):
            if scope == "all":
                await self._complete_stat(place.cid)

            def wanted() -> Iterator[bytes]:
                yield header([place.cid])
                blocks = dict.fromkeys(cid.v1 for cid in place.trail)
                for cid in blocks:
                    yield section(cid, self._read(cid))
                if scope == "all":
                    yield from islice(write_car([place.cid], self._blocks, self._blocks.limits), 1, None)
                    return
                own = own_blocks(place.cid, self._blocks, self._blocks.limits)
                for cid in own if scope == "entity" else [place.cid.v1]:
                    yield section(cid, self._read(cid))

            async for chunk in self._stream(wanted()):
                yield chunk

    def _read(self, cid: CID) -> bytes:
        block = self._blocks.get(cid)
        if block is None:
            raise ContentNotFound(f"block {cid} is not in the store")
        return block

    async def _stream(self, pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
        chunks = batches(pieces, STREAM_CHUNK)
        while True:
            with self._doubting():
                chunk = await self._thread(next, chunks, None)
            if chunk is None:
                return
            yield chunk

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        """What was found complete is looked at again once a block turns out to be missing."""
        try:
            yield
        except ContentNotFound:
            self._blocks.forget_complete()
            raise

    async def block(self, cid: CID) -> bytes:
        """One block of the store, its hash checked. Raises ContentNotFound, InvalidContent."""
        return await self._thread(self._read, cid)

    async def import_car(
        self, chunks: AsyncIterable[bytes], *, pin_owner: str, root_is_last: bool = False
    ) -> CID:
        """Store a CARv1 with one root and everything below it, in any order, and pin it. With
        `root_is_last` its header has no root, and its last block is the root.

        Raises InvalidContent for anything else, ContentTooLarge above the limits of the store.
        """
        reader, used = CarReader(), 0
        with self._blocks.batch() as batch:

            def store(data: bytearray) -> None:
                self._blocks.put_all_verified(reader.feed(data), batch)

            gathered = bytearray()
            async for chunk in chunks:
                used += len(chunk)
                self._blocks.limits.check_transfer(used)
                gathered += chunk
                if len(gathered) >= _GULP:
                    gulp, gathered = gathered, bytearray()
                    await self._thread(store, gulp)
            await self._thread(store, gathered)
            reader.finish()
            roots = reader.roots or ()
            if root_is_last and not roots and reader.latest is not None:
                roots = (reader.latest,)
            root = await self._thread(self._adopt, roots, pin_owner)
        self._pinned(root, pin_owner)
        return root

    def _adopt(self, roots: tuple[CID, ...], pin_owner: str) -> CID:
        if len(roots) != 1:
            raise InvalidContent(f"the CAR stream has {len(roots)} roots; exactly one is accepted")
        roots[0].require_fetchable()
        stat = self._blocks.dag_stat(roots[0], missing_limit=1)
        if not stat.complete:
            raise InvalidContent(f"the CAR stream lacks block {stat.missing[0]}")
        self._blocks.pin(roots[0], pin_owner)
        return roots[0]

    async def pin(self, cid: CID, owner: str, expires: float | None = None) -> None:
        """Note that `owner` needs all below `cid`, until `expires` (UNIX seconds) if given."""
        await trio.lowlevel.checkpoint()
        self._blocks.pin(cid, owner, expires)  # a row of a table: a thread would cost more
        self._pinned(cid, owner)

    async def secure(self, cid: CID) -> None:
        """Wait until a power cut cannot undo what is here below `cid`, and its pins. Raises ContentError.

        Cancelled: what has begun is finished in its thread.
        """
        if self._power_safe:
            await self._thread(self._blocks.sync, cid)

    async def unpin(self, cid: CID, owner: str) -> bool:
        """Take that note back: whether there was one."""
        await trio.lowlevel.checkpoint()
        return self._blocks.unpin(cid, owner)

    async def pins(self, cid: CID | None = None) -> list[Pin]:
        """Who needs this root, or every pin there is; expired ones too."""
        return await self._thread(self._blocks.pins, cid)

    @property
    def used(self) -> int:
        """Bytes of all blocks in the store."""
        return self._blocks.used

    @property
    def quota(self) -> int | None:
        """Bytes that they may have."""
        return self._blocks.quota

    async def collect(self) -> Collected:
        """Remove every block that no pin leads to and nobody uses now.

        Raises ContentError. Cancelled: some are gone.
        """
        return await self._thread(lambda: self._blocks.collect(checkpoint=trio.from_thread.check_cancelled))

    async def keep_room(self) -> None:
        """Whenever little of the quota is left, remove what nobody needs, the oldest first; until
        cancelled. It wakes now and then; a store that fills up meanwhile makes room by itself."""
        while True:
            if self._blocks.needs_collection:
                try:
                    gone = await self._thread(
                        lambda: self._blocks.collect(
                            everything=False, checkpoint=trio.from_thread.check_cancelled
                        )
                    )
                    log.info("blocks_collected", blocks=gone.blocks, bytes=gone.bytes)
                except ContentError as error:
                    log.warning("blocks_not_collected", reason=str(error))
            await trio.sleep(LOOK_EVERY)

    async def _thread(self, call: Callable[..., _T], *args: object) -> _T:
        return await trio.to_thread.run_sync(call, *args, limiter=self._threads)
