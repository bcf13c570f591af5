"""A container's output, with what `container_output` reads of it, and its exit status."""

from __future__ import annotations

import uuid
from pathlib import Path

import docker
import pytest

from bacalhau_p2p.executors.docker.container_monitor import ContainerHistory, unix_seconds
from bacalhau_p2p.executors.docker.executor import DockerExecutor
from bacalhau_p2p.model.job import ResultPath
from bacalhau_p2p.testing.executors import ExecutorKit
from tests.support.programs.shell_programs import ShellPrograms, shell


@pytest.mark.docker
async def test_output_beyond_the_limit_is_dropped_and_the_job_continues(
    docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    executor = DockerExecutor(f"node-{uuid.uuid4()}", stream_limit=100_000)
    kit = ExecutorKit(executor=executor, programs=ShellPrograms(), folder=tmp_path)
    request = kit.request(shell("yes | head -c 5000000; echo end >&2"))
    output = await kit.run(request)
    await executor.aclose()
    assert (output.exit_code, output.stdout_truncated, output.stderr) == (0, True, b"end\n")
    assert (request.results / "stdout").read_bytes() == b"y\n" * 50_000


@pytest.mark.docker
async def test_a_job_that_closes_its_output_runs_to_its_end(kit: ExecutorKit) -> None:
    request = kit.request(
        shell("exec >/dev/null 2>&1; sleep 0.5; echo done > /outputs/file; exit 5"),
        result_paths=[ResultPath(name="out", path="/outputs")],
    )
    assert (await kit.run(request)).exit_code == 5
    assert (request.results / "out" / "file").read_text() == "done\n"


@pytest.mark.docker
async def test_a_job_killed_for_its_memory_says_so_on_stderr(kit: ExecutorKit) -> None:
    hog = shell("echo started; x=0123456789abcdef; while :; do x=$x$x; done")
    output = await kit.run(kit.request(hog))
    assert (output.exit_code, output.stdout) == (137, b"started\n")
    assert output.stderr.endswith(b"out of memory: killed at the limit of 134217728 bytes\n")


@pytest.mark.docker
async def test_a_job_that_kills_itself_is_not_called_out_of_memory(kit: ExecutorKit) -> None:
    output = await kit.run(kit.request(shell("kill -9 $$")))
    assert (output.exit_code, output.stderr) == (137, b"")


def test_timestamps_of_the_engine_become_unix_seconds():
    assert unix_seconds("1970-01-01T00:01:00.25Z") == 60.25
    assert unix_seconds("1970-01-01T00:01:00Z") == 60
    assert ContainerHistory("id", started=10, ended=12.5, was_interrupted=False).seconds() == 2.5
    assert ContainerHistory("id", started=10, ended=None, was_interrupted=False).seconds(now=14) == 4
