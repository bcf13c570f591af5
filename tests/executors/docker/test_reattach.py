"""Containers that outlive the process that started them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import docker
import pytest
import trio

from bacalhau_p2p.errors import ExecutorError, RunTimedOut
from bacalhau_p2p.executors.docker import container_config, container_monitor
from bacalhau_p2p.executors.docker import executor as executors_docker
from bacalhau_p2p.executors.docker.executor import (
    DockerExecutor,
    container_name,
)
from bacalhau_p2p.executors.docker.ownership import give_to_job
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.layout import arrange
from bacalhau_p2p.executors.results import ResultsFolder
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import ResultPath, SpecConfig
from bacalhau_p2p.testing.executors import ExecutorKit, Program

pytestmark = pytest.mark.docker

OUT = (ResultPath(name="out", path="/outputs"),)


def request_for(kit: ExecutorKit, script: str, *, timeout: float = 600) -> RunRequest:
    engine = SpecConfig(type="docker", params={"Image": "busybox:latest", "Entrypoint": ["sh", "-c", script]})
    return kit.request(Program(engine=engine), result_paths=OUT, timeout=timeout)


class Outlived:
    """A run that was left as a killed node leaves it: a container, and a results folder begun."""

    def __init__(self, executor: DockerExecutor, request: RunRequest) -> None:
        self._executor = executor
        self.request = request
        self.name = container_name(request.execution_id)

    async def create(self) -> Outlived:
        await self._executor.prepare(self.request)
        client = self._client = await self._executor._engine.client()
        with ResultsFolder(self.request.results, self.request.result_paths) as results:
            params = self._executor._usable_params(self.request)
            user = await self._executor._users.user_of(params.image)
            give_to_job(results.outputs.values(), user)
            layout = arrange(self.request.inputs, results.outputs)
            options = self._executor._config(client, self.request, params, layout, user)
            await trio.to_thread.run_sync(lambda: client.create_container(**options))
            results.stdout.write(b"the output until its node was killed")
        return self

    async def start(self) -> Outlived:
        await self.create()
        await trio.to_thread.run_sync(self._client.start, self.name)
        return self

    async def end(self) -> Outlived:
        await self.start()
        await trio.to_thread.run_sync(self._client.wait, self.name)
        return self

    async def reattach(self) -> RunOutput | None:
        return await self._executor.reattach(self.request)


SCRIPT = "echo begun; echo warning >&2; {wait}; echo x >> /outputs/ran; echo done; exit 3"
WANTED = RunOutput(exit_code=3, stdout=b"begun\ndone\n", stderr=b"warning\n")


def check_results(request: RunRequest) -> None:
    found = {path.name: path.read_bytes() for path in request.results.iterdir() if path.is_file()}
    assert found == {"stdout": b"begun\ndone\n", "stderr": b"warning\n", "exitCode": b"3"}
    assert (request.results / "out" / "ran").read_text() == "x\n"
    assert (request.results / "out" / "ran").stat().st_uid == request.results.stat().st_uid


async def test_a_running_container_is_followed_to_its_end(executor, kit):
    gate = kit.input_folder("/gate", {})
    wait = "while [ ! -e /gate/open ]; do sleep 0.05; done"
    request = request_for(kit, SCRIPT.format(wait=wait))
    request = replace(request, inputs=[gate])
    left = await Outlived(executor, request).start()
    outputs: list[RunOutput | None] = []

    async def reattach() -> None:
        outputs.append(await left.reattach())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reattach)
        await grown(request.results / "stdout", b"begun\n")
        (gate.path / "open").touch()
    assert outputs == [WANTED]
    check_results(request)


async def grown(path: Path, content: bytes) -> None:
    with trio.fail_after(30):
        while path.read_bytes() != content:  # noqa: ASYNC110, ASYNC240 - a file has no event
            await trio.sleep(0.01)


async def test_the_result_of_an_ended_container_is_collected(executor, kit):
    left = await Outlived(executor, request_for(kit, SCRIPT.format(wait=":"))).end()
    assert await left.reattach() == WANTED
    check_results(left.request)


@pytest.mark.parametrize("signal", [9, 15])
async def test_a_container_that_stopped_with_its_engine_is_run_again(signal, executor, kit):
    left = await Outlived(executor, request_for(kit, f"kill -{signal} $$")).end()
    assert await left.reattach() is None


async def test_a_run_without_a_started_container_is_run_again(executor, kit, docker_client):
    request = request_for(kit, SCRIPT.format(wait=":"))
    assert await executor.reattach(request) is None
    never_started = await Outlived(executor, request).create()
    assert await never_started.reattach() is None
    with pytest.raises(docker.errors.NotFound):
        docker_client.containers.get(never_started.name)


async def test_the_time_out_counts_from_the_start_of_the_container(executor, kit):
    left = await Outlived(executor, request_for(kit, "sleep 3600", timeout=2)).start()
    with trio.fail_after(20), pytest.raises(RunTimedOut, match="timeout of 2 s"):
        await left.reattach()
    over = await Outlived(executor, request_for(kit, "sleep 0.2", timeout=0.1)).end()
    with pytest.raises(RunTimedOut):
        await over.reattach()


async def test_cancelling_a_reattached_run_leaves_no_container(executor, kit, docker_client):
    left = await Outlived(executor, request_for(kit, "echo begun; sleep 3600")).start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.reattach)
        await grown(left.request.results / "stdout", b"begun\n")
        nursery.cancel_scope.cancel()
    with pytest.raises(docker.errors.NotFound):
        docker_client.containers.get(left.name)


async def test_cancelling_before_reattaching_leaves_no_container(executor, kit, docker_client):
    left = await Outlived(executor, request_for(kit, "sleep 3600")).start()
    with trio.CancelScope() as scope:
        scope.cancel()
        await left.reattach()
    with pytest.raises(docker.errors.NotFound):
        docker_client.containers.get(left.name)


async def test_a_run_with_more_output_than_the_engine_keeps_is_run_again(executor, kit, monkeypatch):
    for module in (container_config, container_monitor, executors_docker):
        monkeypatch.setattr(module, "LOG_FILE_SIZE", 1024**2)
    flood = "yes 0123456789012345678901234567890123456789012345678901234567 | head -c 2200000"
    left = await Outlived(executor, request_for(kit, flood)).end()
    assert await left.reattach() is None
    following = await Outlived(executor, request_for(kit, f"echo x; sleep 1; {flood}")).start()
    assert await following.reattach() is None


async def test_a_leftover_container_is_removed_by_a_sweep_when_the_engine_is_back(
    executor, kit, docker_client, monkeypatch
):
    left = await Outlived(executor, request_for(kit, "sleep 3600")).start()
    with monkeypatch.context() as away:
        away.setattr(executor._engine, "_client", None)
        away.setenv("DOCKER_HOST", f"unix://{kit.folder}/no-engine.sock")
        with pytest.raises(ExecutorError, match="no Docker engine runs"):
            await left.reattach()
        with pytest.raises(ExecutorError, match="no Docker engine runs"):
            await executor.sweep(())
    assert await executor.unavailable() is None
    assert docker_client.containers.get(left.name).status == "running", "asking removed it"
    await executor.sweep(())
    with pytest.raises(docker.errors.NotFound):
        docker_client.containers.get(left.name)
