from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support.blocks.bitswap_net import BitswapNet


@pytest.fixture
async def net(nursery, tmp_path):
    with ExitStack() as stack:
        yield BitswapNet(nursery, tmp_path, stack)
