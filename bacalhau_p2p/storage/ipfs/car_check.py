"""Checks a CAR from an untrusted server, block by block, and stops at the first that was not requested."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import trio

from bacalhau_p2p.errors import InvalidContent
from bacalhau_p2p.ipfs.format.car import CarReader, header, section
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.format.traversal import ROOT, Depth, links_of
from bacalhau_p2p.ipfs.format.unixfs import decode

_CHUNK = 256 * 1024
"""Bytes that are worth a thread."""


async def requested_blocks(
    root: CID, pieces: AsyncIterator[bytes], limits: Limits
) -> AsyncGenerator[bytes, None]:
    """A CAR with `root` as its only root and the blocks below it, each once.

    Raises InvalidContent for a block to which no earlier block links, and when blocks are missing at the
    end.
    """
    reader, wanted, seen = CarReader(), {root.v1: ROOT}, set[CID]()
    yield header([root])
    async for chunk in _chunks(pieces):
        for cid, block in await trio.to_thread.run_sync(reader.feed, chunk):
            if cid.v1 in seen:
                continue
            if cid.v1 not in wanted:
                raise InvalidContent(f"block {cid} was not requested")
            _follow_links(cid.v1, block, wanted, seen, limits)
            yield section(cid.v1, block)
    reader.finish()
    if wanted:
        raise InvalidContent(f"{len(wanted)} blocks are missing, among them {next(iter(wanted))}")


def _follow_links(cid: CID, block: bytes, wanted: dict[CID, Depth], seen: set[CID], limits: Limits) -> None:
    depth = wanted.pop(cid)
    seen.add(cid)
    for link, link_depth in links_of(decode(cid, block, limits), depth, limits):
        link.require_fetchable()
        if link.v1 not in seen:
            wanted[link.v1] = link_depth
    limits.check_blocks(len(seen) + len(wanted))


async def _chunks(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    chunk = bytearray()
    async for piece in pieces:
        chunk += piece
        if len(chunk) >= _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)
