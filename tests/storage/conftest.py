from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.content.blockstore import BlockStore
from bacalhau_p2p.content.exchange import Exchange, ExchangeLimits
from bacalhau_p2p.content.service import Content
from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.storage.cache import InputCache
from bacalhau_p2p.storage.fetching import Fetcher, FetchLimits


@pytest.fixture
def content(tmp_path):
    """The content of a node that has no peers."""

    async def unreachable(peer, protocol):
        raise PeerUnreachable(f"{peer} cannot be reached")

    with BlockStore(tmp_path / "blocks") as blocks:
        yield Content(blocks, Exchange(blocks, unreachable, limits=ExchangeLimits(find=2)), lambda: ())


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
