from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.storage.cache import InputCache
from bacalhau_p2p.storage.fetching import Fetcher, FetchLimits


@pytest.fixture
def make_fetcher(tmp_path):
    """Fetchers over one cache, quick to try again."""

    def make(*, budget=10_000_000, **limits):
        limits = {"bytes": 1_000_000, "idle": 5.0, "total": 20.0, "pauses": (0.0, 0.0), **limits}
        cache = InputCache(tmp_path / "cache", budget=budget)
        return Fetcher(cache, FetchLimits(**limits), trio.CapacityLimiter(4))

    return make


@pytest.fixture
def place(tmp_path):
    """An empty folder for an input."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder
