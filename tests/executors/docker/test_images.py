"""Pulling images from a registry on loopback."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import pytest
import trio
from docker.errors import ImageNotFound

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.executor import DockerExecutor
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.job import NetworkSpec, SpecConfig
from bacalhau_p2p.model.resources import Resources
from tests.support.servers.image_registry import Registry, digest

pytestmark = pytest.mark.docker


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        thread = threading.Thread(target=registry.serve_forever)
        thread.start()
        yield registry
        registry.closing.set()
        registry.shutdown()
        thread.join()


@pytest.fixture
async def executor(docker_client: docker.DockerClient) -> AsyncIterator[DockerExecutor]:
    executor = DockerExecutor(f"node-{uuid.uuid4()}")
    yield executor
    await executor.aclose()


@pytest.fixture
def name() -> str:
    return f"test-{uuid.uuid4()}"


def request_for(image: str, folder: Path) -> RunRequest:
    return RunRequest(
        job_id=JobID("j"),
        execution_id=ExecutionID(f"e-{uuid.uuid4()}"),
        engine=SpecConfig(type="docker", params={"Image": image}),
        inputs=[],
        result_paths=[],
        environment={},
        resources=Resources(),
        network=NetworkSpec(),
        timeout=60,
        deterministic=False,
        work=folder,
        results=folder,
    )


async def test_a_missing_image_is_pulled_once(
    registry: Registry,
    name: str,
    executor: DockerExecutor,
    docker_client: docker.DockerClient,
    tmp_path: Path,
) -> None:
    image = registry.add_image(name)
    await executor.prepare(request_for(image, tmp_path))
    try:
        assert docker_client.images.get(f"{image}:latest").attrs["Config"]["Cmd"] == ["/greeting"]
        assert f"/v2/{name}/manifests/latest" in registry.asked
        registry.asked.clear()
        await executor.prepare(request_for(image, tmp_path))
        assert registry.asked == []
    finally:
        docker_client.images.remove(image)


async def test_an_image_is_pulled_by_its_digest(
    registry: Registry,
    name: str,
    executor: DockerExecutor,
    docker_client: docker.DockerClient,
    tmp_path: Path,
) -> None:
    image = f"{registry.add_image(name)}@{digest(registry.files[f'/v2/{name}/manifests/latest'][1])}"
    await executor.prepare(request_for(image, tmp_path))
    docker_client.images.remove(image)


async def test_an_unknown_image_is_a_permanent_failure(
    registry: Registry, name: str, executor: DockerExecutor, tmp_path: Path
) -> None:
    image = f"{registry.address}/{name}:1.2"
    with pytest.raises(ExecutorError, match=f"^image {image}: not found") as caught:
        await executor.prepare(request_for(image, tmp_path))
    assert caught.value.permanent


async def test_an_unreachable_registry_is_not_a_permanent_failure(
    name: str, executor: DockerExecutor, tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        image = f"127.0.0.1:{unused.getsockname()[1]}/{name}"
        with pytest.raises(ExecutorError, match=f"^image {image}: registry unreachable") as caught:
            await executor.prepare(request_for(image, tmp_path))
    assert "connection refused" in str(caught.value)
    assert not caught.value.permanent


async def test_a_cancelled_pull_ends_at_once(
    registry: Registry,
    name: str,
    executor: DockerExecutor,
    docker_client: docker.DockerClient,
    tmp_path: Path,
) -> None:
    image = registry.add_image(name)
    registry.stalled.update(path for path in registry.files if "/blobs/" in path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.prepare, request_for(image, tmp_path))
        assert await trio.to_thread.run_sync(registry.reached.wait, 30)
        nursery.cancel_scope.cancel()
    with pytest.raises(ImageNotFound):
        docker_client.images.get(image)
