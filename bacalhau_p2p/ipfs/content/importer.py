"""Brings files, folders and CARs into the block store."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from functools import partial
from pathlib import Path

import trio

from bacalhau_p2p.errors import InvalidContent
from bacalhau_p2p.ipfs.files.importer import Added, Symlinks, build, is_small_folder
from bacalhau_p2p.ipfs.format.car import CarReader
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.runtime.threads import Threads

_BATCH_SIZE = 512 * 1024
"""Bytes that are checked and stored in one go."""
_BATCH_BLOCKS = 200
"""Blocks that are stored in one go, however small."""


class ContentImporter:
    """Stores content and pins it in one step, so that no collection can remove it in between."""

    def __init__(self, blocks: BlockStore, threads: Threads) -> None:
        self._blocks = blocks
        self._threads = threads

    async def add(
        self, path: Path, *, pin_owner: str, hidden: bool, programs: bool, symlinks: Symlinks
    ) -> Added:
        """See `Content.add`."""

        def store(checkpoint: Callable[[], None]) -> Added:
            make = partial(build, path, hidden=hidden, programs=programs, symlinks=symlinks)
            return self._store_path(make, pin_owner, checkpoint)

        if self._blocks.needs_collection or not is_small_folder(path):
            return await self._threads.run(store, trio.from_thread.check_cancelled)
        await trio.lowlevel.checkpoint()
        added = store(lambda: None)
        self._blocks.has_all(added.cid)  # fills the cache, because the question will come
        return added

    def _store_path(
        self, make: Callable[..., Added], pin_owner: str, checkpoint: Callable[[], None]
    ) -> Added:
        with self._blocks.batch() as batch:
            waiting: list[tuple[CID, bytes]] = []
            size = 0

            def sink(cid: CID, block: bytes) -> None:
                nonlocal size
                checkpoint()
                waiting.append((cid, block))
                size += len(block)
                if len(waiting) >= _BATCH_BLOCKS or size >= _BATCH_SIZE:
                    self._blocks.put_all_verified(waiting, batch)
                    waiting.clear()
                    size = 0

            added = make(sink, limits=self._blocks.limits)
            self._blocks.put_all_verified(waiting, batch)
            self._blocks.pin(added.cid, pin_owner)
        return added

    async def import_car(self, chunks: AsyncIterable[bytes], *, pin_owner: str, root_is_last: bool) -> CID:
        """See `Content.import_car`."""
        reader, size = CarReader(), 0
        with self._blocks.batch() as batch:

            def store(data: bytearray) -> None:
                self._blocks.put_all_verified(reader.feed(data), batch)

            pending = bytearray()
            async for chunk in chunks:
                size += len(chunk)
                self._blocks.limits.check_transfer(size)
                pending += chunk
                if len(pending) >= _BATCH_SIZE:
                    data, pending = pending, bytearray()
                    await self._threads.run(store, data)
            await self._threads.run(store, pending)
            reader.finish()
            roots = reader.roots or ()
            if root_is_last and not roots and reader.latest is not None:
                roots = (reader.latest,)
            return await self._threads.run(self._pin_root, roots, pin_owner)

    def _pin_root(self, roots: tuple[CID, ...], pin_owner: str) -> CID:
        if len(roots) != 1:
            raise InvalidContent(f"the CAR stream has {len(roots)} roots; exactly one is accepted")
        (root,) = roots
        root.require_fetchable()
        stat = self._blocks.dag_stat(root, missing_limit=1)
        if not stat.complete:
            raise InvalidContent(f"block {stat.missing[0]} is missing in the CAR stream")
        self._blocks.pin(root, pin_owner)
        return root
