"""Small blocks, many of which are read at once: `small_blocks`, `block_table` and `disk_blocks`."""

from __future__ import annotations

import hashlib
from contextlib import closing

import pytest

from bacalhau_p2p.ipfs.format.car import write_car
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_stat import dag_stat
from bacalhau_p2p.ipfs.format.profiles import Profile
from bacalhau_p2p.ipfs.store import block_table
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.ipfs.store.garbage_collector import StoredBlock
from bacalhau_p2p.ipfs.store.small_blocks import SmallBlocks
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


def test_a_car_is_the_same_whether_blocks_are_read_one_by_one_or_together(store, tmp_path):
    blocks = MemoryBlocks()
    root = a_dag(tmp_path, blocks)
    store.put_many(blocks.blocks.items())
    assert b"".join(write_car([root], store)) == b"".join(write_car([root], blocks))


def test_a_dag_stat_is_the_same_whether_blocks_are_read_one_by_one_or_together(store, tmp_path):
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


def test_a_damaged_small_block_is_not_returned(store, tmp_path):
    blocks = [(CID.of(RAW, text), text) for text in (b"%d" % number for number in range(200))]
    store.put_many(blocks)
    assert store.get_small([cid for cid, _ in blocks]) == dict(blocks)
    assert store.sizes([cid for cid, _ in blocks]) == {cid: len(block) for cid, block in blocks}
    damage_small_block(tmp_path / "store", blocks[7][0])
    assert blocks[7][0] not in store.get_small([cid for cid, _ in blocks])
    assert store.get(blocks[7][0]) is None


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


@pytest.fixture
def small(tmp_path):
    with closing(SmallBlocks(tmp_path / "small.db")) as small:
        yield small


def test_a_small_block_is_stored_once(small):
    assert small.put_all([(digest(1), b"one"), (digest(2), b"three")], 100) == 8
    assert small.put_all([(digest(2), b"three"), (digest(3), b"")], 200) == 0
    assert small.get_all([digest(number) for number in range(5)]) == {
        digest(1): b"one",
        digest(2): b"three",
        digest(3): b"",
    }
    assert (small.total(), small.size(digest(2)), small.get(digest(4))) == (8, 5, None)
    small.remove([digest(2), digest(4)])
    assert (small.total(), small.has(digest(2)), small.has(digest(1))) == (3, False, True)


def test_a_lookup_may_name_any_number_of_blocks(small):
    small.put_all([(digest(number), b"%d" % number) for number in range(0, 300, 2)], 1)
    for count in (0, 1, 15, 16, 17, 64, 65, 300):
        found = small.sizes([digest(number) for number in range(count)])
        assert found == {digest(number): len(b"%d" % number) for number in range(0, count, 2)}


def test_the_pages_of_a_table_have_all_of_its_blocks(small, monkeypatch):
    monkeypatch.setattr(block_table, "PAGE_SIZE", 10)
    small.put_all([(digest(number), b"%d" % number) for number in range(35)], 100)
    pages = small.pages()
    first = next(pages)
    small.put_all([(digest(100), b"later")], 200)
    blocks = [block for page in (first, *pages) for block in page.blocks()]
    assert [block.digest for block in blocks[:35]] == [digest(number) for number in range(35)]
    assert blocks[0] == StoredBlock(digest(0), 100, 1)
    first.remove([block.digest for block in first.blocks()])
    assert not small.has(digest(0))
    assert small.has(digest(34))
