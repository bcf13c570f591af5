from __future__ import annotations

import pytest

from bacalhau_p2p.outbound.addresses import AddressGuard
from bacalhau_p2p.runtime.threads import Threads
from bacalhau_p2p.storage.fetching.fetcher import Fetcher, FetchLimits
from bacalhau_p2p.storage.fetching.input_cache import InputCache
from tests.support.servers.name_server import Names


@pytest.fixture
def make_fetcher(tmp_path):
    """Makes fetchers over one cache, with two retries and no pauses between them."""

    def make(*, budget=10_000_000, **limits):
        limits = {"bytes": 1_000_000, "idle": 5.0, "total": 20.0, "pauses": (0.0, 0.0), **limits}
        cache = InputCache(tmp_path / "cache", budget=budget)
        return Fetcher(cache, FetchLimits(**limits), Threads(4))

    return make


@pytest.fixture
def place(tmp_path):
    """An empty folder for an input."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.fixture
def names(monkeypatch):
    """Resolves every host name to the given addresses."""

    def use(*answers):
        resolver = Names(*answers)
        monkeypatch.setattr(AddressGuard, "look_up", resolver.look_up)
        return resolver

    return use
