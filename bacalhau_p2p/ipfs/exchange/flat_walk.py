"""Blocks of a DAG without what is below them, so that several providers can share the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bacalhau_p2p.ipfs.format.block_source import require_block
from bacalhau_p2p.ipfs.format.car import header, section_head
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, Limits
from bacalhau_p2p.ipfs.format.traversal import ROOT, Walk, links_of
from bacalhau_p2p.ipfs.format.unixfs import Node, decode
from bacalhau_p2p.ipfs.store.block_store import BlockStore


class FlatWalk(Walk):
    """A `Walk` that does not descend: `found` collects the blocks that the taken blocks link to."""

    def __init__(self, wanted: Sequence[CID], limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(list(wanted), limits)
        self.found: dict[CID, None] = {}

    def take(self, block: bytes) -> Node:
        """Take the expected block, whose hash was checked. Raises InvalidContent, ContentTooLarge."""
        with self._lock:
            cid = self._pending[-1][0]
            node = decode(cid, block, self._limits)
            self.found |= dict.fromkeys(_links(node, self._limits))
            self._pending.pop()
            self._seen.add(cid)
            self._skip_seen()
        return node


def _links(node: Node, limits: Limits) -> Iterator[CID]:
    for link, _ in links_of(node, ROOT, limits):
        link.require_fetchable()
        yield link.v1


def write_flat_car(wanted: Sequence[CID], blocks: BlockStore) -> Iterator[bytes]:
    """A CARv1 of these blocks alone, each once. Raises ContentNotFound at the first missing block."""
    yield header(wanted)
    for cid in dict.fromkeys(cid.v1 for cid in wanted):
        block = require_block(cid, blocks)
        yield section_head(cid, block)
        yield block


def missing_parts(wanted: Sequence[CID], blocks: BlockStore, *, flat: bool) -> tuple[list[CID], list[CID]]:
    """Those of the wanted parts that have to be fetched; with `flat` also what the other ones link to."""
    missing: list[CID] = []
    found: dict[CID, None] = {}
    for cid in wanted:
        if cid.codec == RAW or not flat:
            if cid.codec != RAW or not blocks.has(cid):
                missing.append(cid)
        elif (block := blocks.get(cid)) is None:
            missing.append(cid)
        else:
            found |= dict.fromkeys(_links(decode(cid, block, blocks.limits), blocks.limits))
    return missing, list(found)
