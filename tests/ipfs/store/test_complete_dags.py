"""The cache of complete DAGs, through the store that fills and clears it."""

from __future__ import annotations

import pytest

from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from tests.support.blocks.dag_makers import blob, results_folder
from tests.support.blocks.stored_blocks import large_block, lose_large_block


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "store") as store:
        yield store


@pytest.fixture
def dag(tmp_path) -> tuple[CID, dict[CID, bytes]]:
    blocks: dict[CID, bytes] = {}
    return build(results_folder(tmp_path / "results"), blocks.__setitem__).cid, blocks


def test_a_dag_is_known_to_be_complete_after_its_stat_was_computed(store, dag):
    root, blocks = dag
    store.put_many(blocks.items())
    assert not store.known_complete(root)  # nobody has computed its stat yet
    assert store.dag_stat(root).complete
    assert store.known_complete(root)
    assert store.known_complete(root.v1)


def test_an_incomplete_dag_is_never_known_to_be_complete(store, dag):
    root, blocks = dag
    store.put_many(list(blocks.items())[1:])
    assert not store.has_all(root)
    assert not store.known_complete(root)
    store.put_many(blocks.items())
    assert not store.known_complete(root)
    assert store.has_all(root)
    assert store.known_complete(root)


def test_no_dag_is_known_to_be_complete_after_any_removal(store, dag):
    root, blocks = dag
    loose = CID.of(RAW, b"loose")
    for block in [*blocks, loose]:
        store.put_many([*blocks.items(), (loose, b"loose")])
        assert store.has_all(root)
        store.delete(block)
        assert not store.known_complete(root)
        assert store.has_all(root) == (block == loose)


def test_only_a_collection_that_removes_a_block_clears_the_cache(store, dag):
    root, blocks = dag
    store.put_many(blocks.items())
    store.pin(root, "user")
    assert store.has_all(root)
    assert store.collect().blocks == 0
    assert store.known_complete(root)
    store.put(CID.of(RAW, b"loose"), b"loose")
    assert store.collect().blocks == 1
    assert not store.known_complete(root)
    store.unpin(root, "user")
    assert store.has_all(root)
    assert store.collect().blocks == len(blocks)
    assert not store.known_complete(root)


def test_a_damaged_block_clears_the_cache(store, dag, tmp_path):
    root, blocks = dag
    store.put_many(blocks.items())
    assert store.has_all(root)
    large = next(cid for cid, block in blocks.items() if len(block) == 262_144)
    large_block(tmp_path / "store", large).overwrite(blob(262_144, 77))
    assert store.get(large) is None
    assert not store.known_complete(root)
    assert not store.has_all(root)


def test_the_cache_is_empty_after_opening_the_store(dag, tmp_path):
    root, blocks = dag
    with BlockStore(tmp_path / "store") as store:
        store.put_many(blocks.items())
        assert store.has_all(root)
    large = max(blocks, key=lambda cid: len(blocks[cid]))
    lose_large_block(tmp_path / "store", large)
    with BlockStore(tmp_path / "store") as store:
        assert not store.known_complete(root)
        assert not store.has_all(root)
