"""Pulling images from a registry on loopback."""

from __future__ import annotations

import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import pytest
import trio
from docker.errors import ImageNotFound

from bacalhau_p2p.errors import ExecutorError, SettingsError
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.docker.executor import DockerExecutor
from bacalhau_p2p.executors.docker.images import (
    COLLECT_INTERVAL,
    KEEP_UNUSED,
    RECENT,
    ImagePolicy,
    Images,
)
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.job import NetworkSpec, SpecConfig
from bacalhau_p2p.model.resources import Resources
from tests.support.servers.image_registry import Registry, digest

NO_IMAGE = "is not an image name, such as busybox:1.36 or ghcr.io/owner/name"

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


class Machine:
    """What the clock and the disk of the machine say."""

    now = 1e9
    free: int | None = None


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def executor(docker_client: docker.DockerClient, registry: Registry) -> AsyncIterator[DockerExecutor]:
    """It may use the registry."""
    executor = DockerExecutor(
        f"node-{uuid.uuid4()}", images=ImagePolicy(registries=[registry.address, "127.0.0.1:9"])
    )
    yield executor
    await executor.aclose()


@pytest.fixture
async def images(
    docker_client: docker.DockerClient, registry: Registry, machine: Machine, tmp_path: Path
) -> AsyncIterator[Images]:
    engine = DockerEngine()
    policy = ImagePolicy(registries=[registry.address], keep=KEEP_UNUSED, min_free=1000)
    record = tmp_path / "images.json"
    yield Images(engine, policy, record, now=lambda: machine.now, free=lambda folder: machine.free)
    await engine.aclose()


def has(docker_client: docker.DockerClient, image: str) -> bool:
    try:
        docker_client.images.get(image)
    except ImageNotFound:
        return False
    return True


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
    with pytest.raises(ExecutorError, match=f"^image {image}: not found$") as caught:
        await executor.prepare(request_for(image, tmp_path))
    assert caught.value.permanent


async def test_an_unreachable_registry_is_not_a_permanent_failure(
    name: str, executor: DockerExecutor, tmp_path: Path
) -> None:
    image = f"127.0.0.1:9/{name}"
    with pytest.raises(ExecutorError, match=f"^image {image}:latest: registry unreachable$") as caught:
        await executor.prepare(request_for(image, tmp_path))
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


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ("{address}/admin/panel", "is from {address}, which is not among the registries of this node"),
        ("127.0.0.1:1/x", "is from 127.0.0.1:1, which is not among the registries of this node"),
        ("[::1]:80/x", "is from [::1]:80, which is not among the registries of this node"),
        ("localhost/x", "is from localhost, which is not among the registries of this node"),
        ("../containers/json?x=", f"'../containers/json?x=' {NO_IMAGE}"),
        ("../../info?", f"'../../info?' {NO_IMAGE}"),
    ],
)
async def test_a_registry_that_is_not_listed_is_never_asked(
    registry: Registry, docker_client: docker.DockerClient, tmp_path: Path, image: str, problem: str
) -> None:
    executor = DockerExecutor("node")
    image, problem = image.format(address=registry.address), problem.format(address=registry.address)
    engine = SpecConfig(type="docker", params={"Image": image})
    assert [str(fault) for fault in executor.faults(engine)] == [f"Params.Image: {problem}"]
    for step in (executor.prepare, executor.run):
        with pytest.raises(ExecutorError) as caught:
            await step(request_for(image, tmp_path))
        assert str(caught.value) == f"Params.Image: {problem}"
    assert registry.asked == []
    await executor.aclose()


async def test_what_a_registry_answers_does_not_reach_the_requester(
    registry: Registry, executor: DockerExecutor, tmp_path: Path
) -> None:
    registry.forbidden = b"TOP-SECRET-INTERNAL: password=hunter2 <admin page of a service on loopback>"
    image = f"{registry.address}/admin/panel:latest"
    with pytest.raises(ExecutorError) as caught:
        await executor.prepare(request_for(image, tmp_path))
    assert registry.asked
    assert str(caught.value) in (f"image {image}: registry unreachable", f"image {image}: access denied")


def test_a_registry_is_a_host() -> None:
    with pytest.raises(SettingsError, match=r"image_registries: 'https://ghcr\.io' is not HOST"):
        ImagePolicy(registries=["https://ghcr.io"])


async def test_an_image_that_was_not_used_for_long_is_removed(
    registry: Registry, name: str, images: Images, docker_client: docker.DockerClient, machine: Machine
) -> None:
    image = registry.add_image(name)
    notes: list[str] = []
    await images.ensure(image, notes.append)
    machine.now += KEEP_UNUSED - 10
    await images.ensure(image, notes.append)
    assert notes == [f"pulling image {image}", ""]
    machine.now += KEEP_UNUSED - 10
    await images.collect()
    assert has(docker_client, image)
    machine.now += COLLECT_INTERVAL
    await images.collect()
    assert not has(docker_client, image)


async def test_images_make_room_when_the_disk_is_short(
    registry: Registry, name: str, images: Images, docker_client: docker.DockerClient, machine: Machine
) -> None:
    image = registry.add_image(name)
    await images.ensure(image)
    machine.free = 999
    machine.now += RECENT - 1
    await images.collect()
    assert has(docker_client, image)  # an execution may be about to start
    machine.now += COLLECT_INTERVAL
    machine.free = 1000
    await images.collect()
    assert has(docker_client, image)
    machine.now += COLLECT_INTERVAL
    machine.free = 999
    await images.collect()
    assert not has(docker_client, image)


async def test_an_image_that_somebody_else_pulled_is_not_removed(
    registry: Registry, name: str, images: Images, docker_client: docker.DockerClient, machine: Machine
) -> None:
    image = registry.add_image(name)
    docker_client.images.pull(image, tag="latest")
    try:
        await images.ensure(image)
        machine.now += 2 * KEEP_UNUSED
        await images.collect()
        assert has(docker_client, image)
    finally:
        docker_client.images.remove(image)


async def test_an_image_of_a_container_is_not_removed(
    registry: Registry, name: str, images: Images, docker_client: docker.DockerClient, machine: Machine
) -> None:
    image = registry.add_image(name)
    await images.ensure(image)
    container = docker_client.containers.create(f"{image}:latest")
    machine.now += 2 * KEEP_UNUSED
    await images.collect()
    assert has(docker_client, image)
    container.remove()
    machine.now += COLLECT_INTERVAL
    await images.collect()
    assert not has(docker_client, image)


async def test_a_name_that_stands_for_another_image_now_is_left_alone(
    registry: Registry, name: str, images: Images, docker_client: docker.DockerClient, machine: Machine
) -> None:
    image = registry.add_image(name)
    await images.ensure(image)
    docker_client.images.remove(image)
    docker_client.images.get("busybox:latest").tag(image, "latest")
    try:
        machine.now += 2 * KEEP_UNUSED
        await images.collect()
        assert has(docker_client, image)
    finally:
        docker_client.images.remove(image)
