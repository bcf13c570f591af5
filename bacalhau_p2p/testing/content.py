"""The content of a node that has no peers, for tests of adapters that read or write it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID


@contextmanager
def content_without_peers(folder: Path) -> Iterator[Content]:
    """Content whose blocks are in `folder`, for the length of the block."""
    with BlockStore(folder) as blocks:
        yield without_peers(blocks)


def without_peers(blocks: BlockStore) -> Content:
    """Content that finds nothing but these blocks."""

    async def unreachable(peer: PeerID, protocol: str) -> HalfCloseableStream:
        raise PeerUnreachable(f"{peer} cannot be reached")

    return Content(blocks, Exchange(blocks, unreachable, limits=ExchangeLimits(find=2)))
