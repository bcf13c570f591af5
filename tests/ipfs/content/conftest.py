from __future__ import annotations

import pytest

from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from tests.support.blocks.contents import alone


@pytest.fixture
def store(tmp_path):
    with BlockStore(tmp_path / "store", limits=Limits(bytes=100_000_000)) as store:
        yield store


@pytest.fixture
def content(store):
    return alone(store)
