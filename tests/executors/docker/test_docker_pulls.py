"""Pulling, from a registry of our own on loopback: an engine takes it without TLS."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import socket
import tarfile
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

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

pytestmark = pytest.mark.docker

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Registry(ThreadingHTTPServer):
    """Serves what is in `files`, by path. A path in `stalled` is answered by silence."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RegistryHandler)
        self.files: dict[str, tuple[str, bytes]] = {"/v2/": ("application/json", b"{}")}
        self.stalled: set[str] = set()
        self.asked: list[str] = []
        self.reached = threading.Event()
        """Set when a stalled path was asked for."""
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def add_image(self, name: str) -> str:
        """An image of one file, tagged `latest`; its full name."""
        layer = layer_with("greeting", b"hello")
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/greeting"]},
                "rootfs": {"type": "layers", "diff_ids": [digest(gzip.decompress(layer))]},
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "size": len(config), "digest": digest(config)},
                "layers": [{"mediaType": LAYER, "size": len(layer), "digest": digest(layer)}],
            }
        ).encode()
        for reference in ("latest", digest(manifest)):
            self.files[f"/v2/{name}/manifests/{reference}"] = (MANIFEST, manifest)
        for blob in (config, layer):
            self.files[f"/v2/{name}/blobs/{digest(blob)}"] = ("application/octet-stream", blob)
        return f"{self.address}/{name}"


class RegistryHandler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"
    missing: ClassVar[bytes] = json.dumps(
        {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
    ).encode()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path in self.server.stalled:
            self.server.reached.set()
            self.server.closing.wait()
        kind, data = self.server.files.get(self.path, ("", b""))
        if kind:
            self.send_response(HTTPStatus.OK)
            self.send_header("Docker-Content-Digest", digest(data))
        else:
            kind, data = "application/json", self.missing
            self.send_response(HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base's
        pass


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer_with(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tree:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tree.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue())


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


async def test_image_that_is_not_here_is_pulled_once(
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


async def test_image_is_pulled_by_its_digest(
    registry: Registry,
    name: str,
    executor: DockerExecutor,
    docker_client: docker.DockerClient,
    tmp_path: Path,
) -> None:
    image = f"{registry.add_image(name)}@{digest(registry.files[f'/v2/{name}/manifests/latest'][1])}"
    await executor.prepare(request_for(image, tmp_path))
    docker_client.images.remove(image)


async def test_unknown_image_fails_permanently_by_its_name(
    registry: Registry, name: str, executor: DockerExecutor, tmp_path: Path
) -> None:
    image = f"{registry.address}/{name}:1.2"
    with pytest.raises(ExecutorError, match=f"^image {image}: not found") as caught:
        await executor.prepare(request_for(image, tmp_path))
    assert caught.value.permanent


async def test_unreachable_registry_is_worth_another_try(
    name: str, executor: DockerExecutor, tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        image = f"127.0.0.1:{unused.getsockname()[1]}/{name}"
        with pytest.raises(ExecutorError, match=f"^image {image}: the registry cannot be reached") as caught:
            await executor.prepare(request_for(image, tmp_path))
    assert "connection refused" in str(caught.value)
    assert not caught.value.permanent


async def test_cancelled_pull_ends_at_once(
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
