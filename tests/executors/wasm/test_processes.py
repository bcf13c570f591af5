"""What happens to processes when one of them dies. Covers `child.warm_process` and `failure`."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.isolation.walls import ALL_WALLS
from bacalhau_p2p.executors.wasm import processes as wasm_processes
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.executors.wasm.processes import Processes
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.testing.executors import BackgroundRun, ExecutorKit, Pipe, running
from tests.support.processes import children, open_files
from tests.support.programs.wasm_programs import probe


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[ExecutorKit]:
    """Runs `probe`, and none of the checks of the conformance suite."""
    executor = WasmExecutor(tmp_path / "cache")
    folder = tmp_path / "kit"
    folder.mkdir()
    yield ExecutorKit(executor=executor, programs=None, folder=folder)  # type: ignore[arg-type]
    await executor.aclose()


async def failed(run: BackgroundRun) -> ExecutorError:
    with trio.fail_after(60):
        await run.ended.wait()
    assert run.error is not None, run.output
    assert not run.error.permanent
    return run.error


async def test_a_killed_process_fails_only_its_own_job(kit: ExecutorKit) -> None:
    pipes = [Pipe(kit), Pipe(kit)]
    requests = [kit.request(probe("hold", p.inside), inputs=[p.mount]) for p in pipes]
    async with running(kit, requests[0], pipes[0]) as first:
        (warm,) = children(os.getpid())
        (job,) = children(warm)
        async with running(kit, requests[1], pipes[1]):
            os.kill(job, signal.SIGKILL)
            assert "killed by SIGKILL" in str(await failed(first))
            assert pipes[1].held
            assert await kit.run(kit.request(probe("say", "fine", ""))) == RunOutput(stdout=b"fine")


async def test_when_the_warm_process_dies_its_jobs_end_and_a_new_one_starts(kit: ExecutorKit) -> None:
    pipe = Pipe(kit)
    request = kit.request(probe("hold", pipe.inside), inputs=[pipe.mount])
    async with running(kit, request, pipe) as run:
        (warm,) = children(os.getpid())
        os.kill(warm, signal.SIGKILL)
        await failed(run)
        assert not pipe.held
        assert await kit.run(kit.request(probe("say", "again", ""))) == RunOutput(stdout=b"again")


async def test_a_run_that_is_cancelled_at_any_moment_leaves_no_process(kit: ExecutorKit) -> None:
    """Cancelled at the first step, then at the second, and so on, until one is not cancelled."""
    await kit.run(kit.request(probe("exit", "0")))
    (warm,) = children(os.getpid())
    before = open_files()
    for moment in range(1000):
        request = kit.request(probe("exit", "0"))
        with trio.CancelScope() as scope:
            instrument = _CancelAt(scope, moment)
            trio.lowlevel.add_instrument(instrument)
            try:
                await kit.run(request)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert children(warm) == [], f"cancelled at step {moment}"
        assert open_files() == before, f"cancelled at step {moment}"
        if not scope.cancelled_caught:
            assert moment >= 4, "it was never cancelled"
            return
    pytest.fail("it never ended")


class _CancelAt(trio.abc.Instrument):
    """Cancels once so many steps were made, by whatever task."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self._steps = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._steps == 0:
            self._scope.cancel()
        self._steps -= 1


@pytest.fixture
def far_node(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a job which holds `pipes/alive`."""
    script = f"""
        import sys, trio
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[3])!r})
        from bacalhau_p2p.executors.interface import MountedInput
        from bacalhau_p2p.executors.wasm.executor import WasmExecutor
        from bacalhau_p2p.testing.executors import ExecutorKit
        from tests.support.programs.wasm_programs import probe

        async def main():
            kit = ExecutorKit(executor=WasmExecutor(Path({str(tmp_path / "cache")!r})), programs=None,
                              folder=Path({str(tmp_path)!r}))
            mount = MountedInput(path=Path({str(tmp_path / "pipes")!r}), target="/pipes", read_only=False)
            await kit.run(kit.request(probe("hold", "/pipes/alive"), inputs=[mount]))

        trio.run(main)
    """
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / "alive")
    (tmp_path / "pipes" / "alive").chmod(0o666)  # the job runs as another user
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_jobs_end_when_their_node_is_killed(
    far_node: subprocess.Popen[bytes], tmp_path: Path, how: signal.Signals
) -> None:
    with trio.fail_after(60):
        alive = await trio.to_thread.run_sync(
            os.open, tmp_path / "pipes" / "alive", os.O_RDONLY, abandon_on_cancel=True
        )
        (warm,) = children(far_node.pid)
        watched = os.pidfd_open(warm)
        far_node.send_signal(how)
        os.set_blocking(alive, False)
        await trio.lowlevel.wait_readable(alive)
        assert os.read(alive, 1) == b""  # no process holds it: the job has ended
        await trio.lowlevel.wait_readable(watched)  # and so is the warm process
    os.close(alive)
    os.close(watched)


async def test_jobs_are_in_another_session_than_the_node(kit: ExecutorKit) -> None:
    await kit.run(kit.request(probe("exit", "0")))
    (warm,) = children(os.getpid())
    assert os.getsid(warm) != os.getsid(0)
    assert os.getpgid(warm) != os.getpgid(0)


async def test_a_closed_executor_refuses_runs(kit: ExecutorKit) -> None:
    await kit.executor.aclose()
    with pytest.raises(ExecutorError, match="stopping"):
        await kit.run(kit.request(probe("exit", "0")))
    assert await kit.executor.unavailable() == "this node is stopping"


async def test_an_engine_that_cannot_be_loaded_is_unavailable_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "wasmtime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('no such processor')")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "wasmtime", raising=False)  # as in a node, which never imports it
    executor = WasmExecutor(tmp_path / "cache")
    try:
        why = await executor.unavailable()
    finally:
        await executor.aclose()
    assert why == "WebAssembly cannot be run: wasmtime cannot be loaded: no such processor"
    assert children(os.getpid()) == []


async def test_a_cache_that_cannot_be_created_makes_the_engine_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used" in str(await WasmExecutor(tmp_path / "file").unavailable())


async def child_fails(processes: Processes) -> str:
    """Why no process could be had."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        with pytest.raises(ExecutorError) as caught:
            async with processes.process({"op": "run"}, null, null):
                pytest.fail("a process was had")
    finally:
        os.close(null)
    assert not caught.value.permanent
    return str(caught.value)


async def test_a_warm_process_that_cannot_fork_reports_it_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real warm process, with a fork that fails."""
    script = tmp_path / "failing_fork.py"
    script.write_text(
        "import runpy, sys\n"
        "sys.path.append(sys.argv[1])\n"
        "from bacalhau_p2p.executors.isolation.walls import Walls\n"
        "def fork(walls):\n"
        "    raise BlockingIOError(11, 'Resource temporarily unavailable')\n"
        "Walls.fork = fork\n"
        f"runpy.run_path({str(wasm_processes._SCRIPT)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(wasm_processes, "_SCRIPT", script)
    processes = Processes()
    try:
        await processes.warm_up()
        before = children(os.getpid())
        for _ in range(3):
            assert "Resource temporarily unavailable" in await child_fails(processes)
        assert children(os.getpid()) == before
    finally:
        await processes.aclose()


async def test_a_broken_warm_process_is_replaced() -> None:
    processes = Processes()
    try:
        await processes.warm_up()
        (warm,) = children(os.getpid())
        resource.prlimit(warm, resource.RLIMIT_NOFILE, (3, 3))  # it cannot receive a descriptor
        before = open_files()
        await child_fails(processes)
        await processes.warm_up()
        (other,) = children(os.getpid())
        assert other != warm
        assert open_files() == before
    finally:
        await processes.aclose()


async def test_the_walls_of_this_machine_are_known_and_logged_once_it_is_warm(
    executor: WasmExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    assert executor.walls == ()
    with caplog.at_level("INFO", logger=wasm_processes.__name__):
        for _ in range(2):
            assert await executor.unavailable() is None
    assert {"capabilities", "seccomp"} <= set(executor.walls) <= ALL_WALLS
    assert [record.getMessage().split()[0] for record in caplog.records] == ["event='wasm_walls'"]
