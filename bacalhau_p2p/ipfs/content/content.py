"""The content of one node behind one door: add, fetch, export, pin and collect."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import trio

from bacalhau_p2p.errors import ContentError, ContentNotFound
from bacalhau_p2p.ipfs.content.importer import ContentImporter
from bacalhau_p2p.ipfs.content.paths import ContentPaths
from bacalhau_p2p.ipfs.content.peers import ContentPeers
from bacalhau_p2p.ipfs.content.reader import ContentReader
from bacalhau_p2p.ipfs.exchange.dag_size import claimed_size, stored_size
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.files.car_stream import CarStream, stream_car
from bacalhau_p2p.ipfs.files.export import Existing, Exported, export
from bacalhau_p2p.ipfs.files.importer import Added, Symlinks
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.dag_stat import DagStat
from bacalhau_p2p.ipfs.store.block_store import BlockStore, Collected, Pin
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.threads import Threads

PIN_CHECK_INTERVAL = 3600.0
"""Seconds between two removals of expired pins."""
QUOTA_CHECK_INTERVAL = 60.0
"""Seconds between two checks of how much of the quota is used."""

log = get_logger(__name__)


class Content:
    """The content of one node; `reader` reads what is in its store, and `paths` finds what is below a CID.

    Cancelled: `add`, `fetch` and `import_car` leave whole, unpinned blocks; `export` leaves nothing.
    """

    def __init__(
        self,
        blocks: BlockStore,
        exchange: Exchange,
        peers: ContentPeers = ContentPeers(),  # noqa: B008 - frozen
        *,
        on_pin: Callable[[CID, str], None] = lambda cid, owner: None,
        power_safe: bool = True,
        threads: Threads | None = None,
    ) -> None:
        """`on_pin` is called with each new pin and its owner. Without `power_safe`, `sync` does nothing."""
        self._blocks = blocks
        self._exchange = exchange
        self._peers = peers
        self._on_pin = on_pin
        self._power_safe = power_safe
        self._threads = threads or Threads(4)
        self._importer = ContentImporter(blocks, self._threads)
        self.paths = ContentPaths(blocks, peers, self._threads)
        self.reader = ContentReader(blocks, self._threads)

    # --- into the store

    async def add(
        self,
        path: Path,
        *,
        pin_owner: str,
        hidden: bool = True,
        programs: bool = True,
        symlinks: Symlinks = "keep",
    ) -> Added:
        """Store the file or folder at `path` and pin it for `pin_owner`.

        Unlike `ipfs add -r` this includes hidden files, and which files are `programs`, because a result is
        everything that a job left.
        Raises ContentError, ContentTooLarge.
        """
        added = await self._importer.add(
            path, pin_owner=pin_owner, hidden=hidden, programs=programs, symlinks=symlinks
        )
        self._on_pin(added.cid, pin_owner)
        return added

    async def import_car(
        self, chunks: AsyncIterable[bytes], *, pin_owner: str, root_is_last: bool = False
    ) -> CID:
        """Store a CARv1 with one root and everything below it, in any order, and pin it.

        With `root_is_last` the header has no root, and the last block is the root.
        Raises InvalidContent for anything else, ContentTooLarge above the limits of the store.
        """
        root = await self._importer.import_car(chunks, pin_owner=pin_owner, root_is_last=root_is_last)
        self._on_pin(root, pin_owner)
        return root

    async def fetch(
        self,
        cid: CID,
        *,
        hints: Sequence[PeerID] = (),
        parts: Sequence[CID] | None = None,
        pin_owner: str | None = None,
        expires: float | None = None,
        timeout: float | None = 15.0,
        max_bytes: int | None = None,
    ) -> None:
        """Bring the whole DAG below `cid` into the store, from `hints` or any other peer; or only the DAGs
        `parts` of it, in few requests however many they are.

        Without a pin it stays until space is needed: hold it as long as it is used. A provider must be found
        within `timeout` seconds; the duration of the transfer is not limited. The transfer stops soon after
        `max_bytes`.
        Raises ContentNotFound, InvalidContent, ContentTooLarge.
        """
        with self._blocks.holding(cid):
            await self._exchange.fetch(
                cid, self._peers.sources(hints), parts=parts, timeout=timeout, max_bytes=max_bytes
            )
            if pin_owner is not None:
                await self.pin(cid, pin_owner, expires)

    async def locate(
        self,
        cid: CID,
        names: Sequence[str],
        *,
        hints: Sequence[PeerID] = (),
        timeout: float | None = 15.0,
        max_bytes: int | None = None,
    ) -> CID:
        """The CID of what is at the path `names` below `cid`.

        Only the blocks on the way are needed, from the store or any peer; if no peer sends single blocks,
        everything below `cid` is fetched. Raises PathNotFound, and as `fetch`.
        """
        found = await self.paths.search(cid, names, hints=hints, timeout=timeout)
        if found is None:
            await self.fetch(cid, hints=hints, timeout=timeout, max_bytes=max_bytes)
            found = await self.paths.stored(cid, names)
        if found is None:
            raise ContentNotFound(f"blocks on the way to {'/'.join((str(cid), *names))} are missing")
        return found

    async def files(
        self,
        cid: CID,
        *,
        hints: Sequence[PeerID] = (),
        timeout: float | None = 15.0,
        max_bytes: int | None = None,
    ) -> list[tuple[tuple[str, ...], CID]]:
        """The path of each file below the folder `cid`, and its CID, in order; no symlinks. If `cid` is a
        file, its path is empty.

        Only the blocks of folders and the first ones of files are needed; if no peer sends single blocks,
        everything below `cid` is fetched. Raises as `fetch`.
        """
        found = await self.paths.files(cid, hints=hints, timeout=timeout)
        if found is None:
            await self.fetch(cid, hints=hints, timeout=timeout, max_bytes=max_bytes)
            found = await self.paths.files(cid, hints=hints, timeout=timeout)
        if found is None:
            raise ContentNotFound(f"blocks of the folders in {cid} are missing")
        return found

    async def peek(self, cid: CID, names: Sequence[str], hints: Sequence[PeerID] = ()) -> CID | None:
        """As `locate`, but None when no peer sends the blocks on the way. The caller bounds the time."""
        return await self.paths.search(cid, names, hints=hints, timeout=None)

    async def located(self, cid: CID, names: Sequence[str]) -> CID | None:
        """As `locate`, with the blocks in the store; None when one of them is missing."""
        return await self.paths.stored(cid, names)

    def fetch_as_car(
        self, cid: CID, *, hints: Sequence[PeerID] = (), timeout: float | None = 15.0
    ) -> AbstractAsyncContextManager[CarStream]:
        """A block in which the DAG below `cid` is fetched, and read as a CARv1 while blocks arrive."""
        return stream_car(
            cid, self._blocks, lambda: self.fetch(cid, hints=hints, timeout=timeout), self._threads
        )

    # --- in the store

    async def has(self, cid: CID) -> bool:
        """Whether the whole DAG below `cid` is in the store."""
        if self._blocks.known_complete(cid):
            await trio.lowlevel.checkpoint()
            return True
        return await self._threads.run(self._blocks.has_all, cid)

    async def size(self, cid: CID) -> int:
        """Bytes of all files below `cid`, as they would be exported.

        Raises ContentNotFound when it is not complete in the store, InvalidContent, ContentTooLarge.
        """
        return (await self.reader.stat(cid)).bytes

    async def claimed_size(self, cid: CID, *, hints: Sequence[PeerID] = ()) -> int | None:
        """About the bytes of all files below `cid`, as its root block claims.

        The root block comes from the store, from `hints` or from any other peer. None when there is none, or
        when it claims nothing. The caller bounds the time. Raises InvalidContent, ContentTooLarge.
        """
        cid.require_fetchable()
        block = await self._threads.run(self._blocks.get, cid)
        if block is None:
            block = await self._peers.root_block(cid, hints)
        return None if block is None else claimed_size(cid, block, self._blocks.limits)

    async def stored_size(self, cid: CID) -> int:
        """Bytes of files in those blocks below `cid` that are in the store.

        Raises InvalidContent, ContentTooLarge.
        """
        cid.require_fetchable()
        limits, check = self._blocks.limits, trio.from_thread.check_cancelled
        return await self._threads.run(stored_size, cid, self._blocks, limits, check)

    # --- out of the store

    async def export(
        self,
        cid: CID,
        target: Path,
        *,
        symlinks: Literal["skip", "keep"] = "skip",
        existing: Existing = "refuse",
        max_bytes: int | None = None,
    ) -> Exported:
        """Write the file or folder below `cid`, which must be in the store, to `target`.

        Raises as `files.export.export`; ContentTooLarge for more than `max_bytes` before anything is written.
        """
        limits = self._blocks.limits
        if max_bytes is not None:
            limits = replace(limits, bytes=min(limits.bytes, max_bytes))

        def write(stat: DagStat) -> Exported:
            return export(
                cid,
                target,
                self._blocks,
                limits=limits,
                symlinks=symlinks,
                existing=existing,
                checkpoint=trio.from_thread.check_cancelled,
                stat=stat,
            )

        with self._blocks.holding(cid), self.reader.detecting_loss():
            return await self._threads.run(write, await self.reader.stat(cid))

    # --- keeping it

    def holding(self, cid: CID) -> AbstractContextManager[None]:
        """A block during which nothing below `cid` is collected."""
        return self._blocks.holding(cid)

    async def pin(self, cid: CID, owner: str, expires: float | None = None) -> None:
        """Keep everything below `cid` for `owner`, until `expires` (UNIX seconds) if given."""
        await trio.lowlevel.checkpoint()
        self._blocks.pin(cid, owner, expires)  # one row of a table: a thread would take longer
        self._on_pin(cid, owner)

    async def unpin(self, cid: CID, owner: str) -> bool:
        """Remove a pin; whether there was one."""
        await trio.lowlevel.checkpoint()
        return self._blocks.unpin(cid, owner)

    async def pins(self, cid: CID | None = None) -> list[Pin]:
        """The pins of this root, or all pins; including expired ones."""
        return await self._threads.run(self._blocks.pins, cid)

    async def pinned_roots(self, owners: Sequence[str]) -> list[CID]:
        """What is pinned now by owners that match one of these GLOB patterns, each root once."""
        return await self._threads.run(self._blocks.pinned_roots, owners)

    async def sync(self, cid: CID) -> None:
        """Wait until all stored blocks below `cid`, and the pins, survive a power cut. Raises ContentError.

        Cancelled: what has begun is finished in its thread.
        """
        if self._power_safe:
            await self._threads.run(self._blocks.sync, cid)

    @property
    def used(self) -> int:
        """Bytes of all blocks in the store."""
        return self._blocks.used

    @property
    def quota(self) -> int | None:
        """Bytes that the blocks in the store may have."""
        return self._blocks.quota

    async def collect(self) -> Collected:
        """Remove every block that is neither pinned nor in use.

        Raises ContentError. Cancelled: some blocks are removed.
        """
        return await self._collect(everything=True)

    async def _collect(self, *, everything: bool) -> Collected:
        check = trio.from_thread.check_cancelled
        return await self._threads.run(lambda: self._blocks.collect(everything=everything, checkpoint=check))

    async def remove_expired_pins(self) -> None:
        """Remove what nobody needs any more from the list of pins, now and then, until cancelled."""
        while True:
            try:
                await self._threads.run(self._blocks.remove_expired_pins)
            except ContentError as error:
                log.warning("expired_pins_not_removed", reason=str(error))
            await trio.sleep(PIN_CHECK_INTERVAL)

    async def collect_periodically(self) -> None:
        """Remove the oldest unpinned blocks whenever little of the quota is left, until cancelled.

        Between two checks a full store makes room by itself.
        """
        while True:
            if self._blocks.needs_collection:
                try:
                    removed = await self._collect(everything=False)
                    log.info("blocks_collected", blocks=removed.blocks, bytes=removed.bytes)
                except ContentError as error:
                    log.warning("block_collection_failed", reason=str(error))
            await trio.sleep(QUOTA_CHECK_INTERVAL)
