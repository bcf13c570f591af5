"""Containers are removed when their run ends, and by sweeps."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import docker
import pytest
import trio
from docker.errors import NotFound

from bacalhau_p2p.errors import ExecutorError, RunTimedOut
from bacalhau_p2p.executors.docker.executor import DockerExecutor
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.testing.executors import ExecutorKit, Pipe, running
from tests.support.programs.shell_programs import shell
from tests.support.servers.docker_containers import containers_of, leave_container
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.docker


async def test_no_container_is_left_after_success_failure_or_time_out(
    kit: ExecutorKit, docker_client: docker.DockerClient, node_id: str
) -> None:
    await kit.run(kit.request(shell("exit 3")))
    with pytest.raises(ExecutorError):
        await kit.run(kit.request(shell("", Entrypoint=["nosuch"])))
    with pytest.raises(RunTimedOut):
        await kit.run(kit.request(shell("sleep 3600"), timeout=0.5))
    eventually(lambda: containers_of(docker_client, node_id) == [])


async def test_an_execution_that_runs_again_at_once_does_not_meet_its_old_container(kit: ExecutorKit) -> None:
    request = kit.request(shell("echo once"))
    assert (await kit.run(request)).stdout == b"once\n"
    again = replace(request, results=kit.request(shell("")).results)
    assert (await kit.run(again)).stdout == b"once\n"


async def test_a_container_that_the_engine_does_not_remove_is_removed_later(
    kit: ExecutorKit,
    docker_client: docker.DockerClient,
    node_id: str,
    executor: DockerExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = await executor._containers.client()

    def refuse(*args: object, **kwargs: object) -> None:
        raise docker.errors.DockerException("busy")

    with monkeypatch.context() as patched:
        patched.setattr(client, "remove_container", refuse)
        assert (await kit.run(kit.request(shell("exit 3")))).exit_code == 3
        await until(lambda: executor._containers._leftovers)
    assert len(containers_of(docker_client, node_id)) == 1
    await executor.sweep(())
    assert containers_of(docker_client, node_id) == []


async def test_closing_waits_for_removals_that_go_on(
    kit: ExecutorKit, docker_client: docker.DockerClient, node_id: str, executor: DockerExecutor
) -> None:
    await kit.run(kit.request(shell("true")))
    await executor.aclose()
    assert containers_of(docker_client, node_id) == []


@pytest.mark.parametrize("stage", ["create_container", "attach_socket", "start"])
async def test_a_run_cancelled_at_any_stage_leaves_no_container(
    stage: str,
    kit: ExecutorKit,
    docker_client: docker.DockerClient,
    node_id: str,
    executor: DockerExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = await executor._containers.client()
    original = getattr(client, stage)
    scope = trio.CancelScope()

    def cancelled_meanwhile(*args: object, **kwargs: object) -> object:
        trio.from_thread.run_sync(scope.cancel)
        return original(*args, **kwargs)

    monkeypatch.setattr(client, stage, cancelled_meanwhile)
    with scope:
        await kit.run(kit.request(shell("sleep 3600"), timeout=20))
    assert scope.cancelled_caught
    assert containers_of(docker_client, node_id) == []


async def test_a_sweep_removes_only_unused_containers_of_this_node(
    docker_client: docker.DockerClient, kit: ExecutorKit, executor: DockerExecutor, node_id: str
) -> None:
    pipe = Pipe(kit)
    request = kit.request(kit.programs.hold(pipe.inside), inputs=[pipe.mount])
    other = leave_container(docker_client, f"other-{node_id}")
    try:
        async with running(kit, request, pipe):
            stale = leave_container(docker_client, node_id)
            alive = leave_container(docker_client, node_id)
            await executor.sweep({ExecutionID(alive)})
            assert pipe.held, "what this executor runs itself was removed"
            with pytest.raises(NotFound):
                docker_client.containers.get(stale)
            for spared in (alive, other):
                assert docker_client.containers.get(spared).status == "running"
    finally:
        docker_client.api.remove_container(other, force=True)


async def test_runs_leave_no_files_or_sockets_open(kit: ExecutorKit) -> None:
    def descriptors() -> list[str]:
        links = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # the one that lists
                links.append(str(descriptor.readlink()))
        return [link for link in links if link.startswith("socket:") or str(kit.folder) in link]

    async def run_some() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(kit.run, kit.request(shell("echo text")))

    for _ in range(2):
        await run_some()
    before = len(descriptors())
    for _ in range(3):
        await run_some()
    # The client keeps some idle connections; a leak would be one or more for each of the 12 runs.
    assert len(descriptors()) - before < 12
