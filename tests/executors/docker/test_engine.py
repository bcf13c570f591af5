from __future__ import annotations

import socket
import uuid
from pathlib import Path

import docker
import pytest
import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.executor import DockerExecutor


async def test_a_missing_engine_is_reported_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"unix://{tmp_path}/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", address)
    assert await DockerExecutor("node").unavailable() == f"no Docker engine runs at {address}"


async def test_a_refused_connection_is_reported_as_a_missing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("DOCKER_HOST", address)
        assert await DockerExecutor("node").unavailable() == f"no Docker engine runs at {address}"


async def test_a_silent_engine_is_unavailable_within_five_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        with trio.fail_after(5):
            reason = await DockerExecutor("node").unavailable()
    assert reason is not None
    assert "does not answer" in reason or "did not answer" in reason


async def test_without_an_engine_sweeping_fails_and_closing_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    executor = DockerExecutor("node")
    with pytest.raises(ExecutorError, match=r"^no Docker engine runs at") as caught:
        await executor.sweep(())
    assert not caught.value.permanent
    await executor.aclose()


@pytest.mark.docker
async def test_an_engine_that_answers_is_available(docker_client: docker.DockerClient) -> None:
    executor = DockerExecutor(f"node-{uuid.uuid4()}")
    assert await executor.unavailable() is None
    await executor.aclose()
