"""What a job finds and may do in its container."""

from __future__ import annotations

import docker
import pytest

from bacalhau_p2p.executors.docker.container_config import (
    EXECUTION_LABEL,
    NODE_LABEL,
    container_name,
)
from bacalhau_p2p.model.job import ResultPath, SpecConfig
from bacalhau_p2p.testing.executors import ExecutorKit, Pipe, Program, running
from tests.support.programs.shell_programs import shell


@pytest.mark.docker
async def test_a_container_has_the_labels_and_limits_of_its_execution(
    kit: ExecutorKit, docker_client: docker.DockerClient, node_id: str
) -> None:
    pipe = Pipe(kit)
    request = kit.request(kit.programs.hold(pipe.inside), inputs=[pipe.mount])
    async with running(kit, request, pipe):
        container = docker_client.containers.get(container_name(request.execution_id))
        assert container.labels.items() >= {
            (NODE_LABEL, node_id),
            (EXECUTION_LABEL, request.execution_id),
            ("bacalhau-p2p.job", request.job_id),
        }
        host = container.attrs["HostConfig"]
        assert host["NetworkMode"] == "none"
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges"]
        assert host["Memory"] == host["MemorySwap"] == request.resources.memory
        assert host["CpuQuota"] / host["CpuPeriod"] == request.resources.cpu
        assert host["PidsLimit"] == 1024
        assert host["LogConfig"]["Config"]["max-size"] == str(32 * 1024**2)


@pytest.mark.docker
async def test_a_job_has_no_root_no_capabilities_and_no_network(kit: ExecutorKit) -> None:
    script = "id -u; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; ls /sys/class/net; echo $$"
    output = await kit.run(kit.request(shell(script)))
    uid, *status, interfaces, pid = output.stdout.decode().split("\n")[:-1]
    assert int(uid) > 0
    assert [line.split()[1] for line in status] == ["0" * 16, "0" * 16, "1"]
    assert interfaces == "lo"
    assert pid != "1"


@pytest.mark.docker
async def test_parameters_replace_the_command_of_the_image(kit: ExecutorKit) -> None:
    engine = SpecConfig(type="docker", params={"image": "busybox:latest", "parameters": ["echo", "a  b"]})
    output = await kit.run(kit.request(Program(engine=engine)))
    assert output.stdout == b"a  b\n"


@pytest.mark.docker
async def test_variables_of_the_engine_override_those_of_the_task(kit: ExecutorKit) -> None:
    program = shell('echo "$A $B $C"', environment=["B=engine", "C=x=y"])
    output = await kit.run(kit.request(program, environment={"A": "task", "B": "task"}))
    assert output.stdout == b"task engine x=y\n"


@pytest.mark.docker
async def test_the_working_directory_is_created(kit: ExecutorKit) -> None:
    output = await kit.run(kit.request(shell("pwd", WorkingDirectory="/some/where")))
    assert output.stdout == b"/some/where\n"


@pytest.mark.docker
async def test_the_node_owns_the_results_whatever_modes_the_job_sets(kit: ExecutorKit) -> None:
    script = """
    cd /outputs && mkdir -p closed/deep && echo text > closed/deep/file && chmod 0 closed/deep/file
    chmod 0 closed/deep closed && mkfifo pipe && ln -s /etc/passwd link
    echo x > program && chmod 4777 program
    """
    request = kit.request(shell(script), result_paths=[ResultPath(name="out", path="/outputs")])
    output = await kit.run(request)
    assert (output.exit_code, output.stderr) == (
        0,
        b"left out of the results: out/link: it is a link that leads out of the results: /etc/passwd\n"
        b"left out of the results: out/pipe: it is a pipe, a socket or a device\n",
    )
    out = request.results / "out"
    assert sorted(path.name for path in out.iterdir()) == ["closed", "program"]
    assert (out / "closed" / "deep" / "file").read_text() == "text\n"
    assert (out / "program").stat().st_mode & 0o7777 == 0o777
    mine = kit.folder.stat()
    assert {(p.lstat().st_uid, p.lstat().st_gid) for p in (out, *out.rglob("*"))} == {
        (mine.st_uid, mine.st_gid)
    }


@pytest.mark.docker
async def test_a_job_cannot_write_above_its_result_path(kit: ExecutorKit) -> None:
    request = kit.request(
        shell("echo x > /outputs/../escaped; ls /outputs/.. | grep stdout"),
        result_paths=[ResultPath(name="out", path="/outputs")],
    )
    output = await kit.run(request)
    assert output.exit_code == 1
    assert sorted(path.name for path in request.results.iterdir()) == ["exitCode", "out", "stderr", "stdout"]


def test_a_container_name_has_only_valid_characters() -> None:
    assert container_name("e-4a1f.b_c") == "bacalhau-e-4a1f.b_c"
    assert container_name("e/4 a:ü") == "bacalhau-e-4-a--"
