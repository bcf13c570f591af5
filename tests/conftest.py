"""Fixtures for more than one room."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException

from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.testing.content import without_peers
from tests.support.servers.fake_node import FakeNode

REQUIRE_DOCKER = "BACALHAU_P2P_REQUIRE_DOCKER"
"""Set to 1, as in CI, it makes a missing engine a failure; else its tests are skipped."""

BUSYBOX = "busybox:latest"


def pytest_configure(config: pytest.Config) -> None:
    """Devstacks keep compiled modules in the cache of the user: here in one of this run, for all workers."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tempfile.mkdtemp(prefix="bacalhau-p2p-tests-cache-")
        os.environ["XDG_CACHE_HOME"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """The engine that the environment names, which has an image `busybox:latest`.

    `scripts/test` starts one where there is none.
    """
    try:
        client = docker.from_env(timeout=60)
        client.images.get(BUSYBOX)
    except DockerException as error:
        if os.environ.get(REQUIRE_DOCKER) == "1":
            pytest.fail(f"a Docker engine with {BUSYBOX} is required: {error}", pytrace=False)
        pytest.skip(f"no Docker engine with {BUSYBOX}: {error}")
    yield client
    client.close()


@pytest.fixture
def fake_node() -> Iterator[FakeNode]:
    """A node's HTTP API by Python's own server: keeps jobs and content, runs nothing."""
    with FakeNode() as node:
        yield node


@pytest.fixture
def block_store(tmp_path: Path) -> Iterator[BlockStore]:
    """The blocks of `content`."""
    with BlockStore(tmp_path / "blocks") as blocks:
        yield blocks


@pytest.fixture
def content(block_store: BlockStore) -> Content:
    """The content of a node that has no peers."""
    return without_peers(block_store)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where there are several workers."""
    from tests.support.scheduling import FilesThatShareScheduling

    return FilesThatShareScheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seeds that tests drew, so that a failure can be repeated."""
    seeds = {
        str(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "fresh seeds"
    }
    if seeds:
        terminalreporter.write_line("fresh seeds: " + "; ".join(sorted(seeds)))
