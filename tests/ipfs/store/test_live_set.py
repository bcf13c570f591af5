from __future__ import annotations

from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.store.live_set import LiveSet

ROOT, OTHER = CID.of(DAG_PB, b"root"), CID.of(DAG_PB, b"other")
DIGEST = CID.of(RAW, b"block").digest


def test_held_roots_are_new_to_a_collection_once():
    live = LiveSet()
    with live.holding([ROOT]), live.collecting():
        assert live.has_new_roots
        assert live.take_new_roots() == [ROOT]
        assert not live.has_new_roots
        assert live.take_new_roots() == []


def test_a_root_is_held_until_its_last_user_releases_it():
    live = LiveSet()
    with live.holding([ROOT]):
        with live.holding([ROOT, OTHER]):
            pass
        with live.collecting():
            assert live.take_new_roots() == [ROOT]
    with live.collecting():
        assert live.take_new_roots() == []


def test_both_versions_of_a_cid_are_the_same_root():
    live = LiveSet()
    with live.holding([CID(ROOT.binary[2:])]), live.collecting():
        assert live.take_new_roots() == [ROOT]


def test_roots_that_are_held_or_pinned_during_a_collection_are_new():
    live = LiveSet()
    live.add_pin(ROOT)
    with live.collecting():
        assert not live.has_new_roots
        live.add_pin(ROOT)
        with live.holding([OTHER]):
            pass
        assert live.take_new_roots() == [ROOT, OTHER]


def test_blocks_of_an_open_batch_are_live():
    live = LiveSet()
    with live.batch() as batch, live.collecting():
        live.add_block(DIGEST, batch)
        assert live.has_block(DIGEST)
    assert not live.has_block(DIGEST)


def test_blocks_put_during_a_collection_are_live_until_it_ends():
    live = LiveSet()
    live.add_block(DIGEST, None)
    assert not live.has_block(DIGEST)
    with live.collecting():
        assert not live.has_block(DIGEST)
        live.add_block(DIGEST, None)
        assert live.has_block(DIGEST)
    assert not live.has_block(DIGEST)
