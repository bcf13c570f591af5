from __future__ import annotations

from contextlib import closing

import pytest

from bacalhau_p2p.ipfs.files import spool as module
from bacalhau_p2p.ipfs.files.spool import BlockSpool
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW


@pytest.mark.parametrize("memory", [1, 1_000_000], ids=["file", "memory"])
def test_blocks_are_read_back_in_any_order(monkeypatch, memory):
    monkeypatch.setattr(module, "_MAX_MEMORY", memory)
    blocks = [(CID.of(RAW, block), block) for block in (b"%d" % number * 1000 for number in range(20))]
    with closing(BlockSpool()) as spool:
        for cid, block in [*blocks, blocks[3]]:
            spool.put(cid, block)
        for cid, block in reversed(blocks):
            assert (spool.get(cid), spool.size(cid)) == (block, len(block))
        spool.put(CID.of(RAW, b"more"), b"more")
        assert spool.get(CID.of(RAW, b"more")) == b"more"


def test_both_versions_of_a_cid_name_the_same_block():
    v0 = CID(CID.of(DAG_PB, b"node").binary[2:])
    with closing(BlockSpool()) as spool:
        spool.put(v0, b"node")
        assert spool.get(v0.v1) == spool.get(v0) == b"node"


def test_a_block_that_is_not_there_is_none():
    with closing(BlockSpool()) as spool:
        assert (spool.get(CID.of(RAW, b"")), spool.size(CID.of(RAW, b""))) == (None, None)
