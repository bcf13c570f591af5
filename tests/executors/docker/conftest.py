from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import docker
import pytest

from bacalhau_p2p.executors.docker.executor import DockerExecutor
from bacalhau_p2p.testing.executors import ExecutorKit
from tests.support.programs.shell_programs import ShellPrograms
from tests.support.servers.docker_containers import containers_of


@pytest.fixture
def node_id() -> str:
    return f"node-{uuid.uuid4()}"


@pytest.fixture
async def executor(docker_client: docker.DockerClient, node_id: str) -> AsyncIterator[DockerExecutor]:
    executor = DockerExecutor(node_id)
    yield executor
    await executor.aclose()
    assert containers_of(docker_client, node_id) == []


@pytest.fixture
def kit(executor: DockerExecutor, tmp_path: Path) -> ExecutorKit:
    return ExecutorKit(executor=executor, programs=ShellPrograms(), folder=tmp_path)
