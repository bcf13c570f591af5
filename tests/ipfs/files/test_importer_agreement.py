"""Our CIDs beside those of a second implementation: aleph-cid, which `test_kubo` holds to kubo itself."""

from __future__ import annotations

import shutil

import aleph_cid
import pytest

from bacalhau_p2p.ipfs.files.importer import cid_of
from tests.support.blocks.random_trees import make_tree


@pytest.mark.parametrize("tens", range(20))
def test_random_trees_have_the_cids_that_another_implementation_gives(tens, tmp_path):
    for seed in range(10 * tens, 10 * tens + 10):
        folder = make_tree(tmp_path / str(seed), seed)
        assert (seed, str(cid_of(folder))) == (seed, aleph_cid.hash_folder(folder))
        shutil.rmtree(folder)
