"""Where blocks are read from: a store, a spool, or blocks in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.format.cid import CID


class BlockSource(Protocol):
    """A collection of blocks, each verified against its CID."""

    def get(self, cid: CID) -> bytes | None: ...

    def size(self, cid: CID) -> int | None:
        """Bytes of the block, without reading it."""
        ...


@runtime_checkable
class BulkBlockSource(Protocol):
    """A block source that reads many small blocks faster in one call."""

    def sizes(self, cids: Sequence[CID]) -> Mapping[CID, int]:
        """Bytes of those blocks whose size shows that they are whole; it may leave out any."""
        ...

    def get_small(self, cids: Sequence[CID]) -> Mapping[CID, bytes]:
        """The small ones of these blocks, as `get` returns them; it may leave out any."""
        ...


class TrackedSource:
    """Another source; `missing` is the last block that it did not have, as a CIDv1."""

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        self.missing: CID | None = None

    def get(self, cid: CID) -> bytes | None:
        block = self._source.get(cid)
        if block is None:
            self.missing = cid.v1
        return block

    def size(self, cid: CID) -> int | None:
        return self._source.size(cid)


def require_block(cid: CID, source: BlockSource) -> bytes:
    """The block. Raises ContentNotFound when `source` does not have it."""
    block = source.get(cid)
    if block is None:
        raise ContentNotFound(f"block {cid} is not in the store")
    return block
