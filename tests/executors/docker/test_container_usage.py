"""What a container has used, in both versions of control groups and on a real engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bacalhau_p2p.errors import RunTimedOut
from bacalhau_p2p.executors.docker.container_usage import ContainerUsage
from bacalhau_p2p.executors.interface import Meter
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.testing.executors import ExecutorKit
from tests.support.programs.shell_programs import shell

ID = "0123456789abcdef" * 4


def group(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name.format(id=ID)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def used(root: Path) -> tuple[float | None, int | None]:
    usage, meter = ContainerUsage(root), Meter()
    usage.open(ID)
    usage.report(meter)
    usage.close()
    return meter.cpu_seconds, meter.peak_memory


@pytest.mark.parametrize(
    "files",
    [
        {
            "cpuacct/docker/{id}/cpuacct.usage": "1500000000\n",
            "memory/docker/{id}/memory.max_usage_in_bytes": "4096\n",
        },
        {
            "docker/{id}/cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
            "docker/{id}/memory.peak": "4096\n",
        },
        {
            "system.slice/docker-{id}.scope/cpu.stat": "user_usec 1\nusage_usec 1500000\n",
            "system.slice/docker-{id}.scope/memory.peak": "4096\n",
        },
    ],
    ids=["version 1", "version 2, cgroupfs", "version 2, systemd"],
)
def test_the_figures_are_read_wherever_the_engine_keeps_them(tmp_path: Path, files: dict[str, str]) -> None:
    group(tmp_path, files)
    assert used(tmp_path) == (1.5, 4096)


def test_the_last_figures_that_could_be_read_count(tmp_path: Path) -> None:
    files = {"docker/{id}/cpu.stat": "usage_usec 1000000\n", "docker/{id}/memory.peak": "5000\n"}
    group(tmp_path, files)
    usage, meter = ContainerUsage(tmp_path), Meter()
    usage.open(ID)
    group(tmp_path, {"docker/{id}/cpu.stat": "usage_usec 2000000\n", "docker/{id}/memory.peak": "\n"})
    usage.sample()
    usage.close()
    usage.sample()
    usage.report(meter)
    assert (meter.cpu_seconds, meter.peak_memory) == (2.0, 5000)


def test_what_cannot_be_read_is_not_measured(tmp_path: Path) -> None:
    assert used(tmp_path) == (None, None)
    group(tmp_path, {"docker/{id}/cpu.stat": "usage_usec many\n", "docker/{id}/memory.peak": "max\n"})
    assert used(tmp_path) == (None, None)


@pytest.mark.docker
async def test_a_job_is_told_its_processor_time_and_memory(kit: ExecutorKit) -> None:
    """The shell itself says what it used, in ticks; starting the container costs some beside that.

    Then it sleeps: what is used in the last moments of a container may be missing, for its group vanishes.
    """
    script = (
        "dd if=/dev/zero bs=1M count=3000 of=/dev/null 2>/dev/null; head -c 30000000 /dev/zero | tail -c 1;"
    )
    script += "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; times; sleep 3"  # to be read
    request = replace(kit.request(shell(script)), resources=Resources(cpu=1, memory=100_000_000))
    output = await kit.run(request)
    lines = output.stdout.decode().lstrip("\0").splitlines()[-2:]
    own = sum(minutes_and_seconds(each) for line in lines for each in line.split())
    if request.meter.cpu_seconds is None:
        pytest.skip("the control groups of this engine cannot be read here")
    assert own > 0.1
    assert 0.7 * own < request.meter.cpu_seconds < 1.3 * own + 0.5
    assert request.meter.peak_memory is not None
    assert 500_000 < request.meter.peak_memory <= 100_000_000


def minutes_and_seconds(text: str) -> float:
    minutes, _, seconds = text.rstrip("s").partition("m")
    return int(minutes) * 60 + float(seconds)


@pytest.mark.docker
async def test_a_job_that_is_stopped_has_used_something_too(kit: ExecutorKit) -> None:
    request = kit.request(shell("while :; do :; done"), timeout=3)
    with pytest.raises(RunTimedOut):
        await kit.run(request)
    if request.meter.peak_memory is None:
        pytest.skip("the control groups of this engine cannot be read here")
    assert request.meter.cpu_seconds
