"""Blocks of a DAG without what is below them, so that it can be shared out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bacalhau_p2p.ipfs.format.block_source import require_block
from bacalhau_p2p.ipfs.format.car import header, section_head
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.traversal import ROOT, Walk, links_of
from bacalhau_p2p.ipfs.format.unixfs import Node, decode
from bacalhau_p2p.ipfs.store.block_store import BlockStore


class Expansion(Walk):
    """As a `Walk` that does not go down: `found` is what the blocks that came link to."""

    def __init__(self, wanted: Sequence[CID], limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(list(wanted), limits)
        self.found: dict[CID, None] = {}

    def take(self, block: bytes) -> Node:
        """The expected block, hash checked. Raises InvalidContent, ContentTooLarge for what it is."""
        with self._lock:
            cid = self._pending[-1][0]
            node = decode(cid, block, self._limits)
            self.found |= dict.fromkeys(_below(node, self._limits))
            self._pending.pop()
            self._seen.add(cid)
            self._skip_seen()
        return node


def _below(node: Node, limits: Limits) -> Iterator[CID]:
    for link, _ in links_of(node, ROOT, limits):
        link.require_fetchable()
        yield link.v1


def write_flat(wanted: Sequence[CID], blocks: BlockStore) -> Iterator[bytes]:
    """A CARv1 of these blocks alone, each once. Raises ContentNotFound at the first that is not there."""
    yield header(wanted)
    for cid in dict.fromkeys(cid.v1 for cid in wanted):
        block = require_block(cid, blocks)
        yield section_head(cid, block)
        yield block


def sift(wanted: Sequence[CID], blocks: BlockStore, *, flat: bool) -> tuple[list[CID], list[CID]]:
    """Which of these are not here; and with `flat`, what those link to that are."""
    missing: list[CID] = []
    found: dict[CID, None] = {}
    for cid in wanted:
        if cid.codec == RAW or not flat:
            if cid.codec != RAW or not blocks.has(cid):
                missing.append(cid)
        elif (block := blocks.get(cid)) is None:
            missing.append(cid)
        else:
            found |= dict.fromkeys(_below(decode(cid, block, blocks.limits), blocks.limits))
    return missing, list(found)
