"""How much a DAG is, told by its root block alone, and how much of it is here.

A root claims the bytes of what is below it. The block is checked against its CID, so that whoever made the
content made the claim, and nobody on the way changed it; whether it is true shows when all is fetched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from bacalhau_p2p.errors import InvalidContent
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.format.block_source import BlockSource, BulkBlockSource
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_pb import decode_block
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, MAX_BLOCK, Limits
from bacalhau_p2p.ipfs.format.traversal import ROOT, links_of
from bacalhau_p2p.ipfs.format.unixfs import File, Symlink, decode
from bacalhau_p2p.model.base import PeerID


class Store(BlockSource, BulkBlockSource, Protocol):
    """Blocks that are here."""


AskForBlock = Callable[[PeerID, CID], Awaitable[bytes]]
"""A block from a peer, whose hash was checked. Raises PeerFault."""

ASKED_AT_ONCE = 6
"""Peers; the others are asked when one of these has said no."""


def weight(root: CID, block: bytes, limits: Limits = DEFAULT_LIMITS) -> int | None:
    """Bytes of all files below a root, as its block claims; None where it claims nothing.

    Of a folder a little too much: its links count blocks, not only what is in them.
    Raises InvalidContent, and ContentTooLarge for more than `limits`.
    """
    if len(block) > MAX_BLOCK or not root.verify(block):
        raise InvalidContent(f"block {root} has another hash")
    node = decode(root, block, limits)
    if isinstance(node, File):
        return node.size
    if isinstance(node, Symlink):
        return 0
    sizes = [link.tsize for link in decode_block(root, block).links]
    if not all(sizes):
        return None
    limits.check_bytes(sum(sizes))
    return sum(sizes)


def bytes_held(
    root: CID,
    source: Store,
    limits: Limits = DEFAULT_LIMITS,
    checkpoint: Callable[[], None] = lambda: None,
) -> int:
    """Bytes of files in those blocks below a root that are here, each block counted once.

    What lies below a block that is not here is not counted. `checkpoint` may raise to stop.
    Raises InvalidContent, ContentTooLarge.
    """
    held, pending, seen = 0, [root.v1], {root.v1}
    while pending:
        checkpoint()
        cid = pending.pop()
        block = source.get(cid)
        if block is None:
            continue
        node = decode(cid, block, limits)
        if isinstance(node, File):
            held += len(node.data)
        fresh = {link.v1 for link, _ in links_of(node, ROOT, limits) if link.fetchable} - seen
        seen |= fresh
        limits.check_blocks(len(seen))
        leaves = [link for link in fresh if link.codec == RAW]
        held += sum(source.sizes(leaves).values())
        pending += fresh.difference(leaves)
    return held


async def ask_for_root(root: CID, peers: Sequence[PeerID], ask: AskForBlock) -> bytes | None:
    """The root block from the first peer that gives it, None when nobody does. The caller bounds the time."""
    block: bytes | None = None
    waiting = iter(tuple(dict.fromkeys(peers)))

    async def ask_one_after_the_other() -> None:
        nonlocal block
        for peer in waiting:
            try:
                block = await ask(peer, root)
            except PeerFault:
                continue
            nursery.cancel_scope.cancel()
            return

    async with trio.open_nursery() as nursery:
        for _ in range(ASKED_AT_ONCE):
            nursery.start_soon(ask_one_after_the_other)
    return block
