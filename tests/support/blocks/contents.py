"""The content of a node without peers, and CARs to import."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.files.importer import cid_of, iterate_blocks
from bacalhau_p2p.ipfs.format.car import header, section
from bacalhau_p2p.ipfs.store.block_store import BlockStore


async def unreachable(peer, protocol):
    raise AssertionError("no peer may be contacted")


def alone(store: BlockStore) -> Content:
    """The content of a node without peers; the test fails if it contacts one."""
    return Content(store, Exchange(store, unreachable))


async def pieces(stream: bytes, step: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(stream), step):
        yield stream[start : start + step]


def packed_under_its_root(path: Path) -> bytes:
    """A CAR as `ipfs dag import` accepts it: the root is in its header, the leaves come first."""
    blocks = dict(iterate_blocks(path))  # each block once
    return header([cid_of(path)]) + b"".join(section(cid, block) for cid, block in blocks.items())
