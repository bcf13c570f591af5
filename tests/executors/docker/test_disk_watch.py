"""`Disk` is enforced while a container runs, and before its results are read."""

from __future__ import annotations

from dataclasses import replace

import docker
import pytest

from bacalhau_p2p.executors.docker import disk_watch
from bacalhau_p2p.executors.output_limits import DEPTH_LIMIT, TooMuchOutput
from bacalhau_p2p.model.job import ResultPath
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.testing.executors import ExecutorKit
from tests.support.programs.shell_programs import shell
from tests.support.servers.docker_containers import containers_of

pytestmark = pytest.mark.docker

OUTPUTS = [ResultPath(name="outputs", path="/outputs")]
MEGABYTE = 1_000_000


async def stopped(kit: ExecutorKit, script: str, disk: int) -> str:
    """Why a job with this much `Disk` was stopped."""
    request = replace(
        kit.request(shell(script), result_paths=OUTPUTS), resources=Resources(disk=disk), timeout=120
    )
    with pytest.raises(TooMuchOutput) as caught:
        await kit.run(request)
    assert caught.value.permanent
    return str(caught.value)


@pytest.mark.parametrize(
    "script",
    [
        "dd if=/dev/zero of=/outputs/x bs=1M count=60; sleep 100",
        "truncate -s 3G /outputs/x; sleep 100",
        "dd if=/dev/zero of=/tmp/x bs=1M count=60; sleep 100",
        "head -c 60000000 /dev/zero; head -c 60000000 /dev/zero >&2; sleep 100",
        "cd /outputs; i=0; while mkdir $(seq $i $((i+99))); do i=$((i+100)); done",
    ],
    ids=["outputs", "a hole", "its own file system", "streams", "folders"],
)
async def test_a_job_that_writes_more_than_its_disk_is_stopped_while_it_runs(
    kit: ExecutorKit, node_id: str, docker_client: docker.DockerClient, script: str
) -> None:
    reason = await stopped(kit, script, 20 * MEGABYTE)
    assert reason.startswith("the job's output takes more than the 20000000 bytes")
    assert containers_of(docker_client, node_id) == []


async def test_an_engine_whose_folders_cannot_be_read_is_asked_what_a_container_has_written(
    kit: ExecutorKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_watch, "_layer", lambda client, name: None)
    reason = await stopped(kit, "dd if=/dev/zero of=/tmp/x bs=1M count=60; sleep 100", 20 * MEGABYTE)
    assert reason.startswith("the job's output takes more than the 20000000 bytes")


async def test_outputs_are_counted_before_they_are_read(kit: ExecutorKit) -> None:
    assert "takes more than" in await stopped(kit, "truncate -s 3G /outputs/x", MEGABYTE)


async def test_the_depth_of_folders_is_limited_while_a_job_runs(kit: ExecutorKit) -> None:
    script = "cd /outputs; i=0; while [ $i -lt 300 ]; do mkdir d && cd -P d || break; i=$((i+1)); done"
    script += "; sleep 100"
    assert await stopped(kit, script, 0) == (
        f"the job's output has folders nested more than {DEPTH_LIMIT} deep"
    )


async def test_a_job_within_its_disk_is_not_stopped(kit: ExecutorKit) -> None:
    script = "head -c 9000000 /dev/zero > /outputs/a; cp /outputs/a /tmp/b; sleep 2; rm /outputs/a; echo kept"
    request = replace(
        kit.request(shell(script), result_paths=OUTPUTS), resources=Resources(disk=10 * MEGABYTE)
    )
    output = await kit.run(request)
    assert (output.exit_code, output.stdout) == (0, b"kept\n")
