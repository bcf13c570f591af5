from __future__ import annotations

import pytest

from tests.support.machines.requester_bench import RequesterBench


@pytest.fixture
def bench():
    return RequesterBench()
