from __future__ import annotations

import pytest

from bacalhau_p2p.storage.url.provider import UrlStorage
from tests.support.servers.file_site import LOOPBACK, Site


@pytest.fixture
def site():
    site = Site()
    with site.server:
        yield site


@pytest.fixture
def storage(make_fetcher):
    return UrlStorage(LOOPBACK, make_fetcher())
