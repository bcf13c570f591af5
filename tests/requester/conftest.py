from __future__ import annotations

import pytest
from requester_bench import Bench


@pytest.fixture
def bench():
    return Bench()
