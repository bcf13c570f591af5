"""Where blocks are read from, whichever the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn, Protocol, runtime_checkable

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.format.cid import CID


class BlockSource(Protocol):
    """Where blocks are read from. What `get` gives is what the CID names, or None."""

    def get(self, cid: CID) -> bytes | None: ...

    def size(self, cid: CID) -> int | None:
        """Bytes of the block, without reading it."""
        ...


@runtime_checkable
class Bulk(Protocol):
    """A block source that is quicker asked for many small blocks together."""

    def sizes(self, cids: Sequence[CID]) -> Mapping[CID, int]:
        """Bytes of those whose size shows that they are whole; nothing is said of the others."""
        ...

    def small(self, cids: Sequence[CID]) -> Mapping[CID, bytes]:
        """Those that are there and small, as `get` gives them; nothing is said of the others."""
        ...


def missing_block(cid: CID) -> NoReturn:
    """Raises ContentNotFound for a block that should be in the store."""
    raise ContentNotFound(f"block {cid} is not in the store")
