from __future__ import annotations

import threading

import pytest

from bacalhau_p2p.errors import ContentTooLarge
from bacalhau_p2p.ipfs.exchange.bitswap.want_list import MAX_IN_FLIGHT, WantList
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from tests.support.blocks.dag_makers import file_of


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "store") as store:
        yield store


def test_blocks_are_asked_for_depth_first_and_a_bounded_number_at_a_time(store):
    blocks, root, leaves = file_of(MAX_IN_FLIGHT + 10, 100)
    wants = WantList(store, [root])
    assert wants.next_missing() == [root]
    assert wants.next_missing() == []
    wants.store([(root, blocks.blocks[root])])
    assert wants.next_missing() == leaves[:MAX_IN_FLIGHT]
    assert wants.rest() == leaves
    wants.store([(leaf, blocks.blocks[leaf]) for leaf in leaves[:3]])
    assert wants.next_missing() == leaves[MAX_IN_FLIGHT : MAX_IN_FLIGHT + 3]
    assert store.get(leaves[0]) == blocks.blocks[leaves[0]]


def test_the_links_of_stored_blocks_are_followed(store):
    blocks, root, leaves = file_of(3, 100)
    for cid in (root, leaves[1]):
        store.put(cid, blocks.blocks[cid])
    assert WantList(store, [root]).next_missing() == [leaves[0], leaves[2]]


def test_an_unavailable_block_stays_in_the_rest(store):
    _, _, leaves = file_of(3, 100)
    wants = WantList(store, leaves)
    wants.next_missing()
    wants.mark_unavailable(leaves[0])
    assert list(wants.unavailable) == [leaves[0]]
    assert wants.rest() == [leaves[1], leaves[2], leaves[0]]


def test_a_split_returns_only_blocks_that_were_not_asked_for(store):
    _, _, leaves = file_of(MAX_IN_FLIGHT + 10, 100)
    wants = WantList(store, leaves)
    wants.next_missing()
    assert wants.split(1) == leaves[MAX_IN_FLIGHT:]
    assert wants.rest() == leaves[:MAX_IN_FLIGHT]
    assert wants.split(1) == []


def test_more_blocks_than_the_limit_are_refused(tmp_path):
    blocks, root, _ = file_of(5, 100)
    with BlockStore(tmp_path / "small", limits=Limits(blocks=3)) as store:
        wants = WantList(store, [root])
        wants.next_missing()
        with pytest.raises(ContentTooLarge):
            wants.store([(root, blocks.blocks[root])])


def test_splits_by_another_thread_lose_no_block_and_double_none(store):
    blocks, root, leaves = file_of(500, 100)
    wants, stolen = WantList(store, [root]), []
    finished = threading.Event()

    def steal() -> None:
        while not finished.is_set():
            stolen.extend(wants.split(40))

    thief = threading.Thread(target=steal)
    thief.start()
    fetched = []
    while missing := wants.next_missing():
        fetched += missing
        for cid in missing:
            wants.store([(cid, blocks.blocks[cid])])
    finished.set()
    thief.join()
    assert sorted(map(str, [*fetched, *stolen])) == sorted(map(str, [root, *leaves]))
