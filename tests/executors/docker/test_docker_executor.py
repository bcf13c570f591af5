from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import docker
import pytest
import trio
from docker.errors import NotFound

from bacalhau_p2p.errors import ExecutorError, RunTimedOut
from bacalhau_p2p.executors.docker.executor import EXECUTION_LABEL, NODE_LABEL, DockerExecutor, container_name
from bacalhau_p2p.executors.interface import Executor, MountedInput, RunRequest
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import NetworkSpec, ResultPath, SpecConfig
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.testing.executors import (
    EXECUTOR_CHECKS,
    LINE,
    ExecutorKit,
    Pipe,
    Program,
    Programs,
    running,
)

pytestmark = pytest.mark.docker


def shell(
    script: str, *arguments: str, environment: Mapping[str, str] | Sequence[str] = (), **params: object
) -> Program:
    return Program(
        engine=SpecConfig(
            type="docker",
            params={
                "Image": "busybox:latest",
                "Entrypoint": ["sh", "-c", script, "sh"],
                "Parameters": list(arguments),
                "EnvironmentVariables": environment,
                **params,
            },
        )
    )


class ShellPrograms(Programs):
    def exit_with(self, code: int) -> Program:
        return shell(f"exit {code}")

    def say(self, stdout: str, stderr: str) -> Program:
        return shell('printf %s "$1"; printf %s "$2" >&2', stdout, stderr)

    def flood(self, lines: int) -> Program:
        text = LINE.decode().strip()
        return shell(f"yes {text} | head -n {lines}; yes {text} | head -n {lines // 2} >&2")

    def copy(self, source: str, target: str) -> Program:
        return shell('cp "$1" "$2"', source, target)

    def write(self, path: str, text: str) -> Program:
        return shell('printf %s "$2" > "$1"', path, text)

    def print_variable(self, name: str) -> Program:
        return shell(f'printf %s "${name}"')

    def print_arguments(self, arguments: Sequence[str]) -> Program:
        return shell('for text; do printf "%s\\n" "$text"; done', *arguments)

    def hold(self, path: str) -> Program:
        return shell('exec 3>"$1"; sleep 3600', path)

    def spin(self, path: str) -> Program:
        return shell('exec 3>"$1"; while :; do :; done', path)


@pytest.fixture
def node_id() -> str:
    return f"node-{uuid.uuid4()}"


@pytest.fixture
async def executor(docker_client: docker.DockerClient, node_id: str) -> AsyncIterator[DockerExecutor]:
    executor = DockerExecutor(node_id)
    yield executor
    await executor.aclose()
    assert containers_of(docker_client, node_id) == []


@pytest.fixture
def kit(executor: DockerExecutor, tmp_path: Path) -> ExecutorKit:
    return ExecutorKit(executor=executor, programs=ShellPrograms(), folder=tmp_path)


def containers_of(client: docker.DockerClient, node_id: str) -> list[str]:
    return [c.name for c in client.containers.list(all=True, filters={"label": f"{NODE_LABEL}={node_id}"})]


async def prepare_and_run(executor: Executor, request: RunRequest) -> RunOutput:
    await executor.prepare(request)
    return await executor.run(request)


@pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
async def test_docker_executor_conforms(check: Callable[[ExecutorKit], object], kit: ExecutorKit) -> None:
    await check(kit)


async def test_no_container_is_left_after_any_kind_of_end(
    kit: ExecutorKit, docker_client: docker.DockerClient, node_id: str
) -> None:
    await kit.run(kit.request(shell("exit 3")))
    with pytest.raises(ExecutorError):
        await kit.run(kit.request(shell("", Entrypoint=["nosuch"])))
    with pytest.raises(RunTimedOut):
        await kit.run(kit.request(shell("sleep 3600"), timeout=0.5))
    assert containers_of(docker_client, node_id) == []


@pytest.mark.parametrize("stage", ["create_container", "attach_socket", "start"])
async def test_cancelled_at_any_stage_leaves_no_container(
    stage: str,
    kit: ExecutorKit,
    docker_client: docker.DockerClient,
    node_id: str,
    executor: DockerExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = await executor._ready_client()
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


async def test_container_says_whose_it_is_and_what_it_may_do(
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


async def test_job_is_nobody_without_capabilities_or_network(kit: ExecutorKit) -> None:
    script = "id -u; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; ls /sys/class/net; echo $$"
    output = await kit.run(kit.request(shell(script)))
    uid, *status, interfaces, pid = output.stdout.decode().split("\n")[:-1]
    assert int(uid) > 0
    assert [line.split()[1] for line in status] == ["0" * 16, "0" * 16, "1"]
    assert interfaces == "lo"
    assert pid != "1"


async def test_command_of_the_image_is_replaced_by_parameters_alone(kit: ExecutorKit) -> None:
    engine = SpecConfig(type="docker", params={"image": "busybox:latest", "parameters": ["echo", "a  b"]})
    output = await kit.run(kit.request(Program(engine=engine)))
    assert output.stdout == b"a  b\n"


async def test_environment_of_the_engine_overrides_that_of_the_task(kit: ExecutorKit) -> None:
    program = shell('echo "$A $B $C"', environment=["B=engine", "C=x=y"])
    output = await kit.run(kit.request(program, environment={"A": "task", "B": "task"}))
    assert output.stdout == b"task engine x=y\n"


async def test_working_directory_is_made_and_used(kit: ExecutorKit) -> None:
    output = await kit.run(kit.request(shell("pwd", WorkingDirectory="/some/where")))
    assert output.stdout == b"/some/where\n"


async def test_results_are_ours_whatever_modes_the_job_leaves(kit: ExecutorKit) -> None:
    script = """
    cd /outputs && mkdir -p closed/deep && echo text > closed/deep/file && chmod 0 closed/deep/file
    chmod 0 closed/deep closed && mkfifo pipe && ln -s /etc/passwd link
    echo x > program && chmod 4777 program
    """
    request = kit.request(shell(script), result_paths=[ResultPath(name="out", path="/outputs")])
    output = await kit.run(request)
    assert (output.exit_code, output.stderr) == (0, b"")
    out = request.results / "out"
    assert sorted(path.name for path in out.iterdir()) == ["closed", "link", "program"]
    assert (out / "closed" / "deep" / "file").read_text() == "text\n"
    assert (out / "link").is_symlink()
    assert (out / "program").stat().st_mode & 0o7777 == 0o777
    mine = kit.folder.stat()
    assert {(p.lstat().st_uid, p.lstat().st_gid) for p in (out, *out.rglob("*"))} == {
        (mine.st_uid, mine.st_gid)
    }


async def test_job_cannot_write_above_its_result_path(kit: ExecutorKit) -> None:
    request = kit.request(
        shell("echo x > /outputs/../escaped; ls /outputs/.. | grep stdout"),
        result_paths=[ResultPath(name="out", path="/outputs")],
    )
    output = await kit.run(request)
    assert output.exit_code == 1
    assert sorted(path.name for path in request.results.iterdir()) == ["exitCode", "out", "stderr", "stdout"]


async def test_streams_are_cut_at_their_limit_and_the_job_goes_on(
    docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    executor = DockerExecutor(f"node-{uuid.uuid4()}", stream_limit=100_000)
    kit = ExecutorKit(executor=executor, programs=ShellPrograms(), folder=tmp_path)
    request = kit.request(shell("yes | head -c 5000000; echo end >&2"))
    output = await kit.run(request)
    await executor.aclose()
    assert (output.exit_code, output.stdout_truncated, output.stderr) == (0, True, b"end\n")
    assert (request.results / "stdout").read_bytes() == b"y\n" * 50_000


async def test_job_that_closes_its_output_is_waited_for(kit: ExecutorKit) -> None:
    request = kit.request(
        shell("exec >/dev/null 2>&1; sleep 0.5; echo done > /outputs/file; exit 5"),
        result_paths=[ResultPath(name="out", path="/outputs")],
    )
    assert (await kit.run(request)).exit_code == 5
    assert (request.results / "out" / "file").read_text() == "done\n"


async def test_too_much_memory_ends_in_137_and_says_so(kit: ExecutorKit) -> None:
    hog = shell("echo started; x=0123456789abcdef; while :; do x=$x$x; done")
    output = await kit.run(kit.request(hog))
    assert (output.exit_code, output.stdout) == (137, b"started\n")
    assert output.stderr.endswith(b"out of memory: killed at the limit of 134217728 bytes\n")


async def test_kill_by_the_job_itself_is_not_called_out_of_memory(kit: ExecutorKit) -> None:
    output = await kit.run(kit.request(shell("kill -9 $$")))
    assert (output.exit_code, output.stderr) == (137, b"")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"Entrypoint": ["nosuch", "argument"]}, r"^exec nosuch failed: No such file or directory$"),
        ({"Entrypoint": ["/etc/passwd"]}, r"^exec /etc/passwd failed: Permission denied$"),
        ({"WorkingDirectory": "/etc/passwd"}, r"^Cannot mkdir: /etc/passwd is not a directory$"),
        ({"Image": "Not A Name"}, r"^Params.Image: is not an image name$"),
        ({"Image": "UPPER"}, r"UPPER: invalid reference format: repository name must be lowercase$"),
    ],
)
async def test_what_cannot_start_anywhere_fails_permanently_with_its_root_cause(
    params: Mapping[str, object], message: str, kit: ExecutorKit
) -> None:
    request = kit.request(shell("", **params))
    with pytest.raises(ExecutorError, match=message) as caught:
        await prepare_and_run(kit.executor, request)
    assert caught.value.permanent


async def test_command_that_a_shell_does_not_find_is_a_result(kit: ExecutorKit) -> None:
    output = await kit.run(kit.request(shell("nosuch")))
    assert output.exit_code == 127
    assert output.stderr.endswith(b"nosuch: not found\n")


async def test_input_that_the_job_could_not_read_fails_with_its_mode(kit: ExecutorKit) -> None:
    mounted = kit.input_folder("/inputs", {"a.txt": "text"})
    mounted.path.chmod(0o000)
    with pytest.raises(ExecutorError, match=r"^input /inputs: its mode 0000 keeps it from the user"):
        await kit.run(kit.request(shell("ls /inputs"), inputs=[mounted]))


async def test_missing_input_fails_and_another_node_may_try(kit: ExecutorKit) -> None:
    missing = MountedInput(path=kit.folder / "nosuch", target="/inputs")
    with pytest.raises(ExecutorError, match=r"^input /inputs: No such file or directory$") as caught:
        await kit.run(kit.request(shell("true"), inputs=[missing]))
    assert not caught.value.permanent


async def test_two_mounts_at_one_place_fail_permanently(kit: ExecutorKit) -> None:
    inputs = [kit.input_folder("/inputs", {}), kit.input_folder("/inputs", {})]
    with pytest.raises(ExecutorError, match=r"^Duplicate mount point: /inputs$") as caught:
        await kit.run(kit.request(shell("true"), inputs=inputs))
    assert caught.value.permanent


async def test_gpus_are_refused_by_an_engine_without_a_runtime_for_them(
    kit: ExecutorKit, docker_client: docker.DockerClient
) -> None:
    if "nvidia" in docker_client.info()["Runtimes"]:
        pytest.skip("this engine has GPUs")
    request = replace(kit.request(shell("true")), resources=Resources(gpu=1))
    with pytest.raises(ExecutorError, match=r"^GPU: ") as caught:
        await kit.executor.prepare(request)
    assert not caught.value.permanent


async def test_http_only_network_is_refused(kit: ExecutorKit) -> None:
    network = NetworkSpec(type="HTTP", domains=("example.com",))
    request = replace(kit.request(shell("true")), network=network)
    with pytest.raises(ExecutorError, match=r"^network HTTP: not supported by this node yet$") as caught:
        await kit.executor.prepare(request)
    assert caught.value.permanent


async def test_full_network_is_that_of_the_engine(docker_client: docker.DockerClient, tmp_path: Path) -> None:
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


async def test_sweep_removes_what_an_earlier_life_left_and_nothing_else(
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


def leave_container(client: docker.DockerClient, node_id: str) -> str:
    """A running container like one whose node was killed."""
    name = container_name(f"stale-{uuid.uuid4()}")
    client.containers.run(
        "busybox:latest",
        ["sleep", "3600"],
        name=name,
        detach=True,
        network_mode="none",
        labels={NODE_LABEL: node_id, EXECUTION_LABEL: name},
    )
    return name


async def test_many_runs_leave_no_descriptors_open(kit: ExecutorKit) -> None:
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
