from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentNotFound, InvalidContent
from bacalhau_p2p.ipfs.exchange.flat_walk import FlatWalk, missing_parts, write_flat_car
from bacalhau_p2p.ipfs.format.car import header, section
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from tests.support.blocks.dag_makers import MemoryBlocks, file_of


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "store") as store:
        yield store


def test_a_flat_walk_expects_the_named_blocks_and_collects_their_links():
    blocks, first, first_leaves = file_of(2, 100)
    others, second, second_leaves = file_of(2, 200)
    walk = FlatWalk([first, second])
    assert walk.expected == first
    walk.take(blocks.blocks[first])
    assert walk.expected == second
    walk.take(others.blocks[second])
    assert walk.expected is None
    assert list(walk.found) == [*first_leaves, *second_leaves]


def test_links_of_an_unsupported_codec_are_refused():
    blocks = MemoryBlocks()
    root = blocks.folder([(b"a", CID.of(0x71, b"\xa0"))])
    with pytest.raises(InvalidContent, match="codec 0x71"):
        FlatWalk([root]).take(blocks.blocks[root])


def test_a_flat_car_has_each_named_block_once(store):
    blocks, root, leaves = file_of(2, 100)
    store.put_many(blocks.blocks.items())
    assert b"".join(write_flat_car([root, leaves[1], root], store)) == (
        header([root, leaves[1], root])
        + section(root, blocks.blocks[root])
        + section(leaves[1], blocks.blocks[leaves[1]])
    )
    store.delete(leaves[1])
    with pytest.raises(ContentNotFound, match=f"{leaves[1]}"):
        list(write_flat_car([root, leaves[1]], store))


def test_stored_leaves_need_not_be_fetched_and_other_blocks_only_when_flat(store):
    blocks, root, leaves = file_of(3, 100)
    store.put_many((cid, block) for cid, block in blocks.blocks.items() if cid != leaves[2])
    wanted = [root, *leaves]
    assert missing_parts(wanted, store, flat=False) == ([root, leaves[2]], [])
    assert missing_parts(wanted, store, flat=True) == ([leaves[2]], leaves)
