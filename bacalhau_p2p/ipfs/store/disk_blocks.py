"""All blocks on disk: small ones in a table, larger ones in packs, each by its digest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path

from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store.block_table import BlockPage
from bacalhau_p2p.ipfs.store.packs import Packs
from bacalhau_p2p.ipfs.store.small_blocks import MAX_SMALL, SmallBlocks


class DiskBlocks:
    """May be called from any thread. Every method may raise OSError and sqlite3.Error.

    CIDs must be fetchable. Blocks are returned as they are on the disk: the caller verifies them.
    """

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError when there are packs without the table that says what is in them."""
        with ExitStack() as undo:
            self._small = undo.enter_context(closing(SmallBlocks(folder / "small.db")))
            self._packs = undo.enter_context(closing(Packs(folder / "packs.db", folder / "packs")))
            self._undo = undo.pop_all()

    def close(self) -> None:
        self._undo.close()

    @property
    def lost_blocks(self) -> bool:
        """Whether blocks that were stored were found to be missing on opening."""
        return self._packs.lost_blocks

    def total(self) -> int:
        """Bytes of all blocks."""
        return self._small.total() + self._packs.total()

    def by_table(
        self, blocks: Iterable[tuple[CID, bytes]]
    ) -> Iterator[tuple[Packs | SmallBlocks, list[tuple[bytes, bytes]]]]:
        """The table for each size, with the digests and bodies of the blocks that belong into it."""
        small: list[tuple[bytes, bytes]] = []
        large: list[tuple[bytes, bytes]] = []
        for cid, block in blocks:
            (small if len(block) <= MAX_SMALL else large).append((cid.digest, block))
        if large:
            yield self._packs, large
        if small:
            yield self._small, small

    def get(self, cid: CID) -> bytes | None:
        leaf = cid.codec == RAW  # most leaves are large
        first, second = (self._packs, self._small) if leaf else (self._small, self._packs)
        block = first.get(cid.digest)
        return second.get(cid.digest) if block is None else block

    def get_small(self, cids: Sequence[CID]) -> dict[CID, bytes]:
        """Those blocks that are present in the table of small ones."""
        found = self._small.get_all([cid.digest for cid in cids])
        return {cid: found[cid.digest] for cid in cids if cid.digest in found}

    def size(self, cid: CID) -> int | None:
        size = self._small.size(cid.digest)
        return self._packs.size(cid.digest) if size is None else size

    def sizes(self, cids: Sequence[CID]) -> dict[CID, int]:
        """Bytes of those blocks that are present."""
        digests = [cid.digest for cid in cids]
        found = self._small.sizes(digests)
        found |= self._packs.sizes([digest for digest in digests if digest not in found])
        return {cid: found[cid.digest] for cid in cids if cid.digest in found}

    def remove(self, cid: CID) -> None:
        self._small.remove([cid.digest])
        self._packs.remove([cid.digest])

    def pages(self) -> Iterator[BlockPage]:
        return chain(self._small.pages(), self._packs.pages())

    def sync(self, digests: set[bytes]) -> None:
        """Wait until no power cut can undo that these blocks, as far as they are present, are stored."""
        self._packs.sync_all(list(digests))
        self._small.sync()
