"""Estimates how large a DAG is from its root block alone, and counts how much of it is stored.

A root block claims the size of what is below it. Its hash was checked, so the claim is that of whoever made
the content; whether it is true shows when everything has been fetched.
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


class StoredBlocks(BlockSource, BulkBlockSource, Protocol):
    """A block source that also answers for many blocks at once."""


AskForBlock = Callable[[PeerID, CID], Awaitable[bytes]]
"""Gets one block from a peer and checks its hash. Raises PeerFault."""

_EMPTY_FILE = CID.of(RAW, b"")

ROOT_BLOCK_CONCURRENCY = 6
"""Peers that are asked for a root block at the same time."""
FIRST_ALONE = 0.1
"""Seconds that the first peer has to send it before others are asked as well: it is probably the one that has
the content."""


def claimed_size(root: CID, block: bytes, limits: Limits = DEFAULT_LIMITS) -> int | None:
    """Bytes of all files below a root, as its block claims; None when it claims nothing.

    The claim for a folder is slightly too high, because it includes the blocks that hold links.
    Raises InvalidContent, and ContentTooLarge for more than `limits`.
    """
    if len(block) > MAX_BLOCK or not root.verify(block):
        raise InvalidContent(f"the bytes of block {root} do not match its hash")
    node = decode(root, block, limits)
    if isinstance(node, File):
        return node.size
    if isinstance(node, Symlink):
        return 0
    links = decode_block(root, block).links
    if not all(link.tsize or link.cid == _EMPTY_FILE for link in links):
        return None
    size = sum(link.tsize for link in links)
    limits.check_bytes(size)
    return size


def stored_size(
    root: CID,
    source: StoredBlocks,
    limits: Limits = DEFAULT_LIMITS,
    checkpoint: Callable[[], None] = lambda: None,
) -> int:
    """Bytes of files in the stored blocks below a root, each block counted once.

    Blocks below a missing block are not counted. `checkpoint` may raise to stop.
    Raises InvalidContent, ContentTooLarge.
    """
    size, pending, seen = 0, [root.v1], {root.v1}
    while pending:
        checkpoint()
        cid = pending.pop()
        block = source.get(cid)
        if block is None:
            continue
        node = decode(cid, block, limits)
        if isinstance(node, File):
            size += len(node.data)
        fresh = {link.v1 for link, _ in links_of(node, ROOT, limits) if link.fetchable} - seen
        seen |= fresh
        limits.check_blocks(len(seen))
        leaves = [link for link in fresh if link.codec == RAW]
        size += sum(source.sizes(leaves).values())
        pending += fresh.difference(leaves)
    return size


async def fetch_root_block(root: CID, peers: Sequence[PeerID], ask: AskForBlock) -> bytes | None:
    """The root block from the first peer that sends it, None when no peer does.

    The caller bounds the time.
    """
    block: bytes | None = None
    waiting = iter(tuple(dict.fromkeys(peers)))
    failed = trio.Event()

    async def ask_in_turn() -> None:
        nonlocal block
        for peer in waiting:
            try:
                block = await ask(peer, root)
            except PeerFault:
                failed.set()
                continue
            nursery.cancel_scope.cancel()
            return
        failed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_in_turn)
        with trio.move_on_after(FIRST_ALONE):
            await failed.wait()
        for _ in range(ROOT_BLOCK_CONCURRENCY - 1):
            nursery.start_soon(ask_in_turn)
    return block
