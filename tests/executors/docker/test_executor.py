"""Runs on a real engine: the conformance suite, and what is checked before a run starts."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.executor import DockerExecutor
from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.model.job import NetworkSpec
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.testing.executors import EXECUTOR_CHECKS, ExecutorKit
from tests.support.programs.shell_programs import ShellPrograms, shell

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
async def test_docker_executor_conforms(check: Callable[[ExecutorKit], object], kit: ExecutorKit) -> None:
    await check(kit)


async def test_an_unreadable_input_is_reported_with_its_mode(kit: ExecutorKit) -> None:
    mounted = kit.input_folder("/inputs", {"a.txt": "text"})
    mounted.path.chmod(0o000)
    with pytest.raises(ExecutorError, match=r"^input /inputs: not readable for .* \(mode 0000\)$"):
        await kit.run(kit.request(shell("ls /inputs"), inputs=[mounted]))


async def test_a_missing_input_is_not_a_permanent_failure(kit: ExecutorKit) -> None:
    missing = MountedInput(path=kit.folder / "nosuch", target="/inputs")
    with pytest.raises(ExecutorError, match=r"^input /inputs: No such file or directory$") as caught:
        await kit.run(kit.request(shell("true"), inputs=[missing]))
    assert not caught.value.permanent


async def test_gpus_need_the_nvidia_runtime(kit: ExecutorKit, docker_client: docker.DockerClient) -> None:
    if "nvidia" in docker_client.info()["Runtimes"]:
        pytest.skip("this engine has GPUs")
    request = replace(kit.request(shell("true")), resources=Resources(gpu=1))
    with pytest.raises(ExecutorError, match=r"^GPU: ") as caught:
        await kit.executor.prepare(request)
    assert not caught.value.permanent


async def test_a_job_with_full_network_uses_the_engines_network(
    docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    network = docker_client.networks.create(f"bacalhau-test-{uuid.uuid4()}", driver="bridge")
    executor = DockerExecutor(f"node-{uuid.uuid4()}", full_network=network.name)
    try:
        kit = ExecutorKit(executor=executor, programs=ShellPrograms(), folder=tmp_path)
        request = kit.request(shell("ls /sys/class/net; ip route | grep -c ^default"))
        request = replace(request, network=NetworkSpec(type="Full"))
        output = await kit.run(request)
        assert output.stdout == b"eth0\nlo\n1\n", output
    finally:
        await executor.aclose()
        network.remove()
