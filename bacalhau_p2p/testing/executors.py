"""Conformance suite for executors: what every engine must do, whatever it runs.

An engine takes part by saying how it does what `Programs` asks for, as shell commands or as
modules, and by running each check of `EXECUTOR_CHECKS`:

    @pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
    async def test_executor_conformance(check, tmp_path):
        async with aclosing(MyExecutor()) as executor:
            await check(ExecutorKit(executor=executor, programs=MyPrograms(), folder=tmp_path))

A check passes by returning, and fails by raising AssertionError. It never sleeps; what hangs
fails after `ExecutorKit.patience` seconds.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Protocol

import trio

from bacalhau_p2p.errors import ExecutorError, RunTimedOut
from bacalhau_p2p.executors.interface import Executor, MountedInput, RunRequest
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import INLINE_OUTPUT_LIMIT, RunOutput
from bacalhau_p2p.model.job import NetworkSpec, ResultPath, SpecConfig
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.testing.purity import no_io

LINE = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n"
"""What `Programs.flood` repeats: 64 bytes."""

MEMORY = 128 * 1024**2
"""Bytes of memory that each run gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Something that an engine can run, and the inputs that it needs for itself (its module)."""

    engine: SpecConfig
    inputs: Sequence[MountedInput] = ()


class Programs(Protocol):
    """One engine's way of doing each of these. Paths are absolute, inside the job."""

    def exit_with(self, code: int) -> Program:
        """Exits with this code, silently."""
        ...

    def say(self, stdout: str, stderr: str) -> Program:
        """Writes these texts, of printable ASCII, to the two streams, adding nothing, and exits with 0."""
        ...

    def flood(self, lines: int) -> Program:
        """Writes `LINE` this often to stdout, and half as often to stderr, and exits with 0."""
        ...

    def copy(self, source: str, target: str) -> Program:
        """Copies one file, and exits with 0; with another code when it cannot."""
        ...

    def write(self, path: str, text: str) -> Program:
        """Makes or overwrites the file, and exits with 0; with another code when it cannot."""
        ...

    def print_variable(self, name: str) -> Program:
        """Writes the value of an environment variable to stdout, adding nothing."""
        ...

    def print_arguments(self, arguments: Sequence[str]) -> Program:
        """Is started with these arguments and writes each, and a newline, to stdout."""
        ...

    def hold(self, path: str) -> Program:
        """Opens a named pipe for writing, writes nothing, and sleeps for an hour."""
        ...

    def spin(self, path: str) -> Program:
        """Opens a named pipe for writing, writes nothing, and computes for ever."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorKit:
    """What a check needs. `folder` is empty and this check's own."""

    executor: Executor
    programs: Programs
    folder: Path
    patience: float = 60
    """Seconds after which a check fails."""
    _numbers: count[int] = field(default_factory=count)

    def request(
        self,
        program: Program,
        *,
        inputs: Sequence[MountedInput] = (),
        result_paths: Sequence[ResultPath] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float = 600,
        deterministic: bool = False,
    ) -> RunRequest:
        """A request to run this, with folders of its own."""
        number = next(self._numbers)
        base = self.folder / f"run-{number}"
        work, results = base / "work", base / "results"
        base.mkdir(parents=True)
        results.mkdir()
        return RunRequest(
            job_id=JobID(f"j-conformance-{os.getpid()}"),
            execution_id=ExecutionID(f"e-conformance-{os.getpid()}-{id(self):x}-{number}"),
            engine=program.engine,
            inputs=[*program.inputs, *inputs],
            result_paths=result_paths,
            environment=environment or {},
            resources=Resources(cpu=0.5, memory=MEMORY, disk=1024**3),
            network=NetworkSpec(),
            timeout=timeout,
            deterministic=deterministic,
            work=work,
            results=results,
        )

    async def run(self, request: RunRequest) -> RunOutput:
        """Prepare and run. Raises as the executor does."""
        with no_io():
            faults = self.executor.faults(request.engine)
        assert faults == [], f"the kit's own program has faults: {faults}"
        await self.executor.prepare(request)
        return await self.executor.run(request)

    def input_folder(self, target: str, files: Mapping[str, str], *, read_only: bool = True) -> MountedInput:
        """A folder with these files in it, to be mounted at `target`, readable by everybody."""
        path = self.folder / f"input-{next(self._numbers)}"
        path.mkdir()
        for name, text in files.items():
            (path / name).write_text(text, encoding="utf-8")
        return MountedInput(path=path, target=target, read_only=read_only)


class Pipe:
    """A named pipe that a job holds open: the pipe tells when it began, and whether it still lives."""

    def __init__(self, kit: ExecutorKit) -> None:
        self.mount = kit.input_folder("/pipes", {}, read_only=False)
        self.mount.path.chmod(0o777)  # the job may run as another user
        self.inside = f"{self.mount.target}/alive"
        self._path = self.mount.path / "alive"
        os.mkfifo(self._path)
        self._path.chmod(0o666)
        self._fd: int | None = None
        self._closed = False

    async def wait_opened(self) -> None:
        """Return when the job has opened the pipe."""
        await trio.to_thread.run_sync(self._open, abandon_on_cancel=True)

    def _open(self) -> None:
        fd = os.open(self._path, os.O_RDONLY)  # blocks until somebody opens the pipe for writing
        if self._closed:
            os.close(fd)
        else:
            os.set_blocking(fd, False)
            self._fd = fd

    @property
    def held(self) -> bool:
        """Whether any process has the pipe open for writing at this moment."""
        assert self._fd is not None, "the program never opened the pipe"
        try:
            return os.read(self._fd, 1) != b""
        except BlockingIOError:
            return True

    def close(self) -> None:
        """Close our end, and free the thread that waits for a job that never came."""
        self._closed = True
        if self._fd is None:
            os.close(os.open(self._path, os.O_RDWR | os.O_NONBLOCK))
        else:
            os.close(self._fd)


class BackgroundRun:
    """A run in the background, which holds a pipe while it lives."""

    def __init__(self, kit: ExecutorKit, request: RunRequest) -> None:
        self._kit = kit
        self._request = request
        self._scope = trio.CancelScope()
        self.ended = trio.Event()
        self.error: ExecutorError | None = None
        self.output: RunOutput | None = None

    async def run(self) -> None:
        try:
            with self._scope:
                self.output = await self._kit.run(self._request)
        except ExecutorError as error:
            self.error = error
        finally:
            self.ended.set()

    def cancel(self) -> None:
        self._scope.cancel()


@asynccontextmanager
async def running(kit: ExecutorKit, request: RunRequest, pipe: Pipe) -> AsyncIterator[BackgroundRun]:
    """Run in the background for the length of the block, which begins once the job holds `pipe`.

    On exit the run has ended, by itself or cancelled, and the pipe is closed.
    """
    run = BackgroundRun(kit, request)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            async with trio.open_nursery() as race:

                async def finish_first(wait: Callable[[], Awaitable[object]]) -> None:
                    await wait()
                    race.cancel_scope.cancel()

                race.start_soon(finish_first, pipe.wait_opened)
                race.start_soon(finish_first, run.ended.wait)
            assert not run.ended.is_set(), f"the program ended by itself: {run.error or run.output}"
            assert pipe.held, "the program let go of the pipe"
            yield run
            run.cancel()
    finally:
        pipe.close()


async def check_exit_codes_are_results(kit: ExecutorKit) -> None:
    """Every code from 0 to 255 comes back as it is, and goes into the results folder."""
    for code in (0, 1, 2, 125, 126, 127, 134, 137, 255):
        request = kit.request(kit.programs.exit_with(code))
        output = await kit.run(request)
        assert output == RunOutput(exit_code=code), f"{output} instead of exit code {code}"
        found = {entry.name: entry.read_bytes() for entry in request.results.iterdir()}
        assert found == {"stdout": b"", "stderr": b"", "exitCode": str(code).encode()}, found


async def check_streams_are_kept_apart(kit: ExecutorKit) -> None:
    """What a job says is kept to the byte, without a newline at the end too."""
    request = kit.request(kit.programs.say("to the world\nunfinished", "only a warning"))
    output = await kit.run(request)
    assert output == RunOutput(stdout=b"to the world\nunfinished", stderr=b"only a warning"), output
    assert (request.results / "stdout").read_bytes() == b"to the world\nunfinished"
    assert (request.results / "stderr").read_bytes() == b"only a warning"


async def check_long_streams_are_complete(kit: ExecutorKit) -> None:
    """Both streams arrive whole, however much they are, and messages carry their beginning."""
    lines = 65536
    request = kit.request(kit.programs.flood(lines))
    output = await kit.run(request)
    assert (output.exit_code, output.stdout_truncated, output.stderr_truncated) == (0, True, True)
    for name, expected, head in (
        ("stdout", LINE * lines, output.stdout),
        ("stderr", LINE * (lines // 2), output.stderr),
    ):
        kept = (request.results / name).read_bytes()
        assert len(kept) == len(expected), f"{name}: {len(kept)} bytes of {len(expected)}"
        assert kept == expected, f"{name} is garbled"
        assert head == expected[:INLINE_OUTPUT_LIMIT], f"{name}: the head in the message is wrong"


async def check_inputs_are_found_at_their_targets(kit: ExecutorKit) -> None:
    """A folder and a single file, each at its target; and the named output is a folder of the results."""
    single = kit.folder / "single"
    single.write_text("from a file")
    inputs = [
        kit.input_folder("/inputs/deep/er", {"a.txt": "from a folder"}),
        MountedInput(path=single, target="/data/renamed.txt"),
    ]
    for source, text in (("/inputs/deep/er/a.txt", "from a folder"), ("/data/renamed.txt", "from a file")):
        request = kit.request(
            kit.programs.copy(source, "/outputs/copy"),
            inputs=inputs,
            result_paths=[ResultPath(name="answers", path="/outputs")],
        )
        output = await kit.run(request)
        assert output.exit_code == 0, output
        assert (request.results / "answers" / "copy").read_text() == text


async def check_result_paths_are_folders_of_the_results(kit: ExecutorKit) -> None:
    """Each result path is a folder under its name, also when the job leaves nothing in it."""
    request = kit.request(
        kit.programs.write("/out/one/file", "text"),
        result_paths=[ResultPath(name="first", path="/out/one"), ResultPath(name="second", path="/two")],
    )
    output = await kit.run(request)
    assert output.exit_code == 0, output
    assert (request.results / "first" / "file").read_text() == "text"
    assert list((request.results / "second").iterdir()) == []


async def check_inputs_are_read_only(kit: ExecutorKit) -> None:
    """A job can neither change an input nor add to it; that it cannot is its own result."""
    mounted = kit.input_folder("/inputs", {"a.txt": "original"})
    mounted.path.chmod(0o777)
    (mounted.path / "a.txt").chmod(0o666)
    single = kit.folder / "single"
    single.write_text("original")
    single.chmod(0o666)
    inputs = [mounted, MountedInput(path=single, target="/data/single")]
    for path in ("/inputs/a.txt", "/inputs/new.txt", "/data/single"):
        output = await kit.run(kit.request(kit.programs.write(path, "changed"), inputs=inputs))
        assert output.exit_code != 0, f"{path} could be written"
    assert {entry.name: entry.read_text() for entry in mounted.path.iterdir()} == {"a.txt": "original"}
    assert single.read_text() == "original"


async def check_environment_and_arguments_arrive(kit: ExecutorKit) -> None:
    """Both arrive as they are: no shell, no splitting, and nothing of the node's own environment."""
    value = 'two words, $HOME `id` \\ "quoted" ='
    os.environ["CONFORMANCE_OF_THE_NODE"] = "private"
    try:
        request = kit.request(kit.programs.print_variable("GREETING"), environment={"GREETING": value})
        assert (await kit.run(request)).stdout == value.encode()
        request = kit.request(kit.programs.print_variable("CONFORMANCE_OF_THE_NODE"))
        assert (await kit.run(request)).stdout == b""
    finally:
        del os.environ["CONFORMANCE_OF_THE_NODE"]
    arguments = ["plain", "", "two words", "-n", "$HOME", "*", "'\""]
    output = await kit.run(kit.request(kit.programs.print_arguments(arguments)))
    assert output.stdout.decode().split("\n") == [*arguments, ""], output.stdout


async def check_cancelled_run_leaves_nothing_running(kit: ExecutorKit) -> None:
    """When a cancelled `run` returns, the job is gone: one that sleeps and one that computes."""
    for kind in ("hold", "spin"):
        pipe = Pipe(kit)
        request = kit.request(getattr(kit.programs, kind)(pipe.inside), inputs=[pipe.mount])
        async with running(kit, request, pipe) as run:
            run.cancel()
            await run.ended.wait()
            assert not pipe.held, f"a program that was to {kind} is still alive"
        assert run.error is None, run.error


async def check_time_out_ends_the_run(kit: ExecutorKit) -> None:
    """After `timeout` seconds RunTimedOut is raised, and the job is gone."""
    for kind in ("hold", "spin"):
        pipe = Pipe(kit)
        request = kit.request(getattr(kit.programs, kind)(pipe.inside), inputs=[pipe.mount], timeout=3)
        begun = trio.current_time()
        async with running(kit, request, pipe) as run:
            await run.ended.wait()
            assert not pipe.held, f"a program that was to {kind} is still alive"
        assert isinstance(run.error, RunTimedOut), run.error or run.output
        assert trio.current_time() - begun >= 3, "it was not given its time"


async def check_concurrent_runs_do_not_mix(kit: ExecutorKit) -> None:
    """Runs at the same time see their own inputs and leave their own results."""

    async def run_one(number: int) -> None:
        text = f"only of run {number}"
        request = kit.request(
            kit.programs.copy("/inputs/a.txt", "/outputs/a.txt"),
            inputs=[kit.input_folder("/inputs", {"a.txt": text})],
            result_paths=[ResultPath(name="outputs", path="/outputs")],
        )
        output = await kit.run(request)
        assert output.exit_code == 0, output
        assert (request.results / "outputs" / "a.txt").read_text() == text
        request = kit.request(kit.programs.say(text, text[::-1]))
        output = await kit.run(request)
        assert (output.stdout, output.stderr) == (text.encode(), text[::-1].encode()), output

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(run_one, number)


async def check_one_cancelled_run_does_not_harm_another(kit: ExecutorKit) -> None:
    """Cancelling one of two runs ends that one alone."""
    first, second = Pipe(kit), Pipe(kit)
    requests = [kit.request(kit.programs.hold(p.inside), inputs=[p.mount]) for p in (first, second)]
    async with running(kit, requests[1], second), running(kit, requests[0], first) as run:
        run.cancel()
        await run.ended.wait()
        assert not first.held
        assert second.held, "the other run was ended too"


async def check_closing_ends_what_runs(kit: ExecutorKit) -> None:
    """When `aclose` returns, nothing of the executor runs; a second `aclose` does nothing.

    Uses up the kit's executor.
    """
    pipe = Pipe(kit)
    request = kit.request(kit.programs.hold(pipe.inside), inputs=[pipe.mount])
    async with running(kit, request, pipe) as run:
        await kit.executor.aclose()
        assert not pipe.held, "the program outlived its executor"
        await run.ended.wait()
    assert run.output is None, f"a run that was broken off gave a result: {run.output}"
    await kit.executor.aclose()


Check = Callable[[ExecutorKit], Awaitable[None]]


def _within_patience(check: Check) -> Check:
    @wraps(check)
    async def limited(kit: ExecutorKit) -> None:
        with trio.fail_after(kit.patience):
            await check(kit)

    return limited


EXECUTOR_CHECKS: tuple[Check, ...] = tuple(
    _within_patience(check)
    for check in (
        check_exit_codes_are_results,
        check_streams_are_kept_apart,
        check_long_streams_are_complete,
        check_inputs_are_found_at_their_targets,
        check_result_paths_are_folders_of_the_results,
        check_inputs_are_read_only,
        check_environment_and_arguments_arrive,
        check_cancelled_run_leaves_nothing_running,
        check_time_out_ends_the_run,
        check_concurrent_runs_do_not_mix,
        check_one_cancelled_run_does_not_harm_another,
        check_closing_ends_what_runs,
    )
)
"""Every check, each of one kit of its own: `await check(kit)`."""
