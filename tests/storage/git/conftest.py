from __future__ import annotations

import pytest

from bacalhau_p2p.storage.git.provider import GitStorage
from tests.support.servers.file_site import LOOPBACK
from tests.support.servers.git_server import Repository


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "served").mkdir()
    repository = Repository(tmp_path / "served")
    repository.first = repository.commit(a="one", sub__b="b")
    repository.run("tag", "-a", "v1", "-m", "v1")
    repository.second = repository.commit(a="two", sub__b="b")
    with repository.server:
        yield repository


@pytest.fixture
def storage(make_fetcher):
    return GitStorage(LOOPBACK, make_fetcher())
