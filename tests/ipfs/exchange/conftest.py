from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support.blocks.content_net import Net


@pytest.fixture
async def net(nursery, tmp_path):
    with ExitStack() as stack:
        yield Net(nursery, tmp_path, stack)
