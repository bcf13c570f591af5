"""Our CIDs beside those of a second implementation: aleph-cid, which `test_kubo` holds to kubo itself."""

from __future__ import annotations

import shutil

import aleph_cid
import pytest
from random_trees import make_tree

from bacalhau_p2p.content.unixfs import cid_of


@pytest.mark.parametrize("tens", range(20))
def test_random_trees_have_the_cids_that_another_implementation_gives(tens, tmp_path):
    for seed in range(10 * tens, 10 * tens + 10):
        folder = make_tree(tmp_path / str(seed), seed)
        assert (seed, str(cid_of(folder))) == (seed, aleph_cid.hash_folder(folder))
        shutil.rmtree(folder)
