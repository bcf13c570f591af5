"""What a builder of blocks returns for its parent to link to."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB


class Subtree(NamedTuple):
    """The root of a file or folder, and the bytes of all its blocks."""

    cid: CID
    tsize: int


Blocks = Generator[tuple[CID, bytes], None, Subtree]
"""Yields each block with its CID, children before parents, and returns the root."""


def node_block(block: bytes, tsize_of_children: int = 0) -> Blocks:
    """Yield one dag-pb block, and return it as the root of its children."""
    cid = CID.of(DAG_PB, block)
    yield cid, block
    return Subtree(cid, len(block) + tsize_of_children)
