"""Many small blocks that are read, or looked at, together."""

from __future__ import annotations

import pytest

from bacalhau_p2p.ipfs.format.car import write_car
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_stat import dag_stat
from bacalhau_p2p.ipfs.format.profiles import Profile
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from tests.support.blocks.dag_makers import MemoryBlocks, blob
from tests.support.blocks.stored_blocks import damage_small_block


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "store") as store:
        yield store


def a_dag(tmp_path, blocks: MemoryBlocks) -> CID:
    """Small and large leaves, some of them in several places, below folders and shards of folders."""
    for folder in ("one", "two", "one/inner"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(150):
            (tmp_path / "data" / folder / f"{number}").write_bytes(blob(number * 20 + 1, number))
    (tmp_path / "data" / "large").write_bytes(blob(3_000_000, 1) + blob(3_000_000, 1))
    (tmp_path / "data" / "middling").write_bytes(blob(100_000, 2))
    return blocks.add(tmp_path / "data", profile=Profile(shard_above=4000)).cid


def test_a_car_from_the_store_is_the_one_of_blocks_read_one_by_one(store, tmp_path):
    blocks = MemoryBlocks()
    root = a_dag(tmp_path, blocks)
    store.put_many(blocks.blocks.items())
    assert b"".join(write_car([root], store)) == b"".join(write_car([root], blocks))


def test_what_a_dag_adds_up_to_is_the_same_however_it_is_read(store, tmp_path):
    blocks = MemoryBlocks()
    root = a_dag(tmp_path, blocks)
    store.put_many(blocks.blocks.items())
    assert dag_stat(root, store) == dag_stat(root, blocks)
    gone = [cid for cid in blocks.blocks if cid.codec == RAW][5:400:40]
    for cid in gone:
        store.delete(cid)
        del blocks.blocks[cid]
    assert dag_stat(root, store) == dag_stat(root, blocks)
    assert set(dag_stat(root, store).missing) == set(gone)


def test_a_damaged_small_block_is_not_given(store, tmp_path):
    blocks = [(CID.of(RAW, text), text) for text in (b"%d" % number for number in range(200))]
    store.put_many(blocks)
    assert store.get_small([cid for cid, _ in blocks]) == dict(blocks)
    assert store.sizes([cid for cid, _ in blocks]) == {cid: len(block) for cid, block in blocks}
    damage_small_block(tmp_path / "store", blocks[7][0])
    assert blocks[7][0] not in store.get_small([cid for cid, _ in blocks])
    assert store.get(blocks[7][0]) is None
