"""Reads stored content: files, folders, single blocks, CARs and TARs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Literal

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.files.reader import ResolvedPath, entity_blocks, read_file, resolve
from bacalhau_p2p.ipfs.files.tar import write_tar
from bacalhau_p2p.ipfs.format.block_source import require_block
from bacalhau_p2p.ipfs.format.car import batches, header, section, write_car
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.dag_stat import DagStat, require_complete
from bacalhau_p2p.ipfs.format.traversal import folder_entries
from bacalhau_p2p.ipfs.format.unixfs import Folder, Node, Shard
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.runtime.threads import Threads

STREAM_CHUNK = 512 * 1024
"""Bytes of each chunk of a stream, except the last."""

DagScope = Literal["all", "entity", "block"]
"""How much of a DAG a CAR contains: everything; one file, or one folder without its entries; one block."""


class ContentReader:
    """Reads from the block store only. Streams hold what they read, so that no collection removes it."""

    def __init__(self, blocks: BlockStore, threads: Threads) -> None:
        self._blocks = blocks
        self._threads = threads

    async def stat(self, cid: CID) -> DagStat:
        """The sums over a DAG that is complete in the store.

        Raises ContentNotFound when it is not complete, InvalidContent, ContentTooLarge.
        """
        cid.require_fetchable()
        stat = await self._threads.run(lambda: self._blocks.dag_stat(cid, missing_limit=1))
        return require_complete(cid, self._blocks, self._blocks.limits, stat)

    async def block(self, cid: CID) -> bytes:
        """One block, its hash checked. Raises ContentNotFound, InvalidContent."""
        return await self._threads.run(require_block, cid, self._blocks)

    async def resolve(self, cid: CID, names: tuple[str, ...] = ()) -> ResolvedPath:
        """What is at a path below `cid`. Raises ContentNotFound, InvalidContent."""
        return await self._threads.run(resolve, cid, names, self._blocks, self._blocks.limits)

    async def entries(self, place: ResolvedPath) -> list[str]:
        """The names in a folder, sorted; none for anything else."""
        node = place.node
        if not isinstance(node, Folder | Shard):
            return []

        def load(cid: CID) -> Node | None:
            return resolve(cid, (), self._blocks, self._blocks.limits).node

        return await self._threads.run(
            lambda: sorted(entry.name for entry in folder_entries(place.cid, node, load))
        )

    async def file(self, cid: CID, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes of a file from `start` up to `end`. Raises as `files.reader.read_file`."""
        with self._blocks.holding(cid):
            pieces = await self._threads.run(read_file, cid, self._blocks, start, end, self._blocks.limits)
            async for chunk in self._stream(pieces):
                yield chunk

    async def tar(self, cid: CID, *, name: str = "") -> AsyncGenerator[bytes, None]:
        """The DAG below `cid` as a TAR; see `files.tar.write_tar`."""
        with self._blocks.holding(cid):
            stat = await self.stat(cid)
            pieces = write_tar(cid, self._blocks, name=name, limits=self._blocks.limits, stat=stat)
            async for chunk in self._stream(pieces):
                yield chunk

    async def car(self, cid: CID) -> AsyncGenerator[bytes, None]:
        """The DAG below `cid` as a CARv1 in depth-first order.

        Raises ContentNotFound before the first byte when it is not complete in the store.
        """
        async for chunk in self.car_at(await self.resolve(cid), "all"):
            yield chunk

    async def car_at(self, place: ResolvedPath, scope: DagScope) -> AsyncGenerator[bytes, None]:
        """A CARv1 whose root is `place`: the blocks that lead there, then those in `scope`, depth first.

        Raises ContentNotFound before the first byte when `scope` is "all" and blocks are missing.
        """
        with self._blocks.holding(place.cid, *place.ancestors[:1]):
            if scope == "all":
                await self.stat(place.cid)
            async for chunk in self._stream(self._car_at(place, scope)):
                yield chunk

    def _car_at(self, place: ResolvedPath, scope: DagScope) -> Iterator[bytes]:
        blocks = self._blocks
        yield header([place.cid])
        for cid in dict.fromkeys(cid.v1 for cid in place.ancestors):
            yield section(cid, require_block(cid, blocks))
        if scope == "all":
            yield from islice(write_car([place.cid], blocks, blocks.limits), 1, None)  # without its header
            return
        entity = entity_blocks(place.cid, blocks, blocks.limits) if scope == "entity" else [place.cid.v1]
        for cid in entity:
            yield section(cid, require_block(cid, blocks))

    async def _stream(self, pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
        chunks = batches(pieces, STREAM_CHUNK)
        while True:
            with self.detecting_loss():
                chunk = await self._threads.run(next, chunks, None)
            if chunk is None:
                return
            yield chunk

    @contextmanager
    def detecting_loss(self) -> Iterator[None]:
        """A block in which a missing block makes the store check again which DAGs are complete."""
        try:
            yield
        except ContentNotFound:
            self._blocks.forget_complete()
            raise
