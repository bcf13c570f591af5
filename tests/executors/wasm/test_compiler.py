"""What compiling a stranger's module may take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import wasmtime

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput, RunRequest
from bacalhau_p2p.executors.wasm import compiler
from bacalhau_p2p.executors.wasm.compiled_cache import CompiledCache
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.executors.wasm.modules import LocatedModule, module_hash
from bacalhau_p2p.executors.wasm.processes import Processes
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.quantities import format_bytes
from tests.support.programs.wasm_programs import MB, PROBE, prepare_and_run, refused, wasm_request, wat
from tests.support.programs.wasm_slow_compile import slow_module
from tests.support.waiting import until


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each process was started for; fails when two compile at one time."""
    names: list[str] = []
    compiling = 0
    process = Processes.process

    def watched(self, spec, stdout, stderr):  # type: ignore[no-untyped-def]
        names.append(spec["op"])
        nonlocal compiling
        compiling += spec["op"] == "compile"
        assert compiling <= 1, "two compilers at one time"
        manager = process(self, spec, stdout, stderr)

        class Watched:
            async def __aenter__(self):  # type: ignore[no-untyped-def]
                return await manager.__aenter__()

            async def __aexit__(self, *error):  # type: ignore[no-untyped-def]
                nonlocal compiling
                compiling -= spec["op"] == "compile"
                return await manager.__aexit__(*error)

        return Watched()

    monkeypatch.setattr(Processes, "process", watched)
    return names


@pytest.mark.parametrize("small", [compiler.SMALL_MODULE, 0], ids=["small", "large"])
async def test_one_compiler_runs_at_a_time_and_compiles_equal_modules_once(
    small: int, executor: WasmExecutor, tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "SMALL_MODULE", small)
    modules = [wat(tmp_path, f'(module (func (export "f{n % 3}")))', f"{n}.wasm") for n in range(6)]
    async with trio.open_nursery() as nursery:
        for module in modules:
            nursery.start_soon(executor.prepare, wasm_request(tmp_path, module))
    assert started == ["compile"] * 3


async def test_nodes_that_share_a_folder_compile_a_module_once(tmp_path: Path, started: list[str]) -> None:
    module = wat(tmp_path, '(module (func (export "f")))', "m.wasm")
    executors = [WasmExecutor(tmp_path / "shared") for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for executor in executors:
            nursery.start_soon(executor.prepare, wasm_request(tmp_path, module))
    for executor in executors:
        await executor.aclose()
    assert started == ["compile"]


async def test_a_node_that_compiles_for_too_long_does_not_hold_up_the_others_for_ever(
    executor: WasmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    @contextmanager
    def taken(self: CompiledCache, key: str) -> Iterator[None]:
        yield None

    monkeypatch.setattr(CompiledCache, "writing", taken)
    module = wat(tmp_path, "(module)", "m.wasm")
    with pytest.raises(ExecutorError, match=r"another node .* takes too long to compile module\.wasm"):
        await executor.prepare(wasm_request(tmp_path, module))


def few_seconds(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(compiler, "compile_seconds", lambda size: 1)
    monkeypatch.setattr(compiler, "WALL_CLOCK_FACTOR", 60)
    return "takes more than 1 s"


def little_memory(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(compiler, "COMPILE_MEMORY", 100 * MB)
    return "takes more than 100 MiB of memory"


def small_size(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(compiler, "MODULE_SIZE_LIMIT", 1000)
    return "a module has at most 1000"


@pytest.mark.parametrize("limit", [few_seconds, little_memory, small_size])
async def test_a_module_over_a_limit_fails_for_good_and_is_compiled_once(
    limit: Callable[[pytest.MonkeyPatch], str],
    executor: WasmExecutor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[str],
) -> None:
    reason = limit(monkeypatch)
    module = tmp_path / "slow.wasm"
    module.write_bytes(slow_module(20_000))
    for _ in range(2):
        assert reason in await refused(executor, wasm_request(tmp_path, module))
    assert len(started) == (0 if limit is small_size else 1)


@pytest.mark.parametrize("verified", [True, False])
async def test_verified_content_is_hashed_once_however_many_jobs_share_it(
    verified: bool, executor: WasmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counted(module: LocatedModule) -> str:
        hashed.append(module.path)
        return module_hash(module)

    monkeypatch.setattr(compiler, "module_hash", counted)
    kept = wat(tmp_path, '(module (func (export "_start")))')
    for number in range(3):
        copy = tmp_path / f"copy-{number}.wasm"
        copy.hardlink_to(kept)  # which changes the ctime of the file that all of them are
        mounted = MountedInput(path=copy, target="/module.wasm", content="bafy" if verified else "")
        asked = wasm_request(tmp_path, copy, inputs=[mounted])
        assert await prepare_and_run(executor, asked) == RunOutput()
    assert len(hashed) == (1 if verified else 3)


async def test_content_that_was_damaged_when_it_was_hashed_is_hashed_again(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.wasm"
    damaged.write_bytes(b"\0asm\x01\0\0\0" + b"garbage." * 10)
    sound = tmp_path / "sound.wasm"
    # In a custom section, which no program reads: both have the same size, and both claim the same content.
    sound.write_bytes(wasmtime.wat2wasm('(module (func (export "_start")))'))
    padding = damaged.stat().st_size - sound.stat().st_size - 3
    sound.write_bytes(sound.read_bytes() + bytes([0, padding + 1, 0]) + bytes(padding))
    assert sound.stat().st_size == damaged.stat().st_size

    def request(path: Path) -> RunRequest:
        mounted = MountedInput(path=path, target="/module.wasm", content="bafy")
        return wasm_request(tmp_path, path, inputs=[mounted])

    assert "is not a valid WebAssembly module" in await refused(executor, request(damaged))
    assert await prepare_and_run(executor, request(sound)) == RunOutput()


async def test_what_a_job_waits_for_is_noted(
    executor: WasmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "SMALL_MODULE", 0)
    module = wat(tmp_path, '(module (func (export "_start")))')
    notes: list[str] = []
    asked = wasm_request(tmp_path, module, note=notes.append)
    # The lock is held as by the compiler of another job, and released before the nursery waits.
    async with trio.open_nursery() as nursery, executor._compiler._compiling:
        nursery.start_soon(executor.prepare, asked)
        await until(lambda: notes)
    size = format_bytes(module.stat().st_size)
    waiting = f"waiting for another module to be compiled before module.wasm ({size})"
    assert notes == [waiting, f"compiling module.wasm ({size})", ""]
    await executor.prepare(asked)
    assert len(notes) == 3


async def test_a_small_module_does_not_wait_for_a_large_one(
    executor: WasmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.wasm"
    large.write_bytes(slow_module(20_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.prepare, wasm_request(tmp_path, large))
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(10):
            await executor.prepare(wasm_request(tmp_path, PROBE))
        assert executor._compiler._compiling.locked()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("name", "value"), [("SMALL_TIME", 0.1), ("SMALL_MEMORY", -170 * MB)], ids=["time", "memory"]
)
async def test_a_small_module_that_needs_much_is_compiled_as_a_large_one(
    name: str,
    value: float,
    executor: WasmExecutor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[str],
) -> None:
    monkeypatch.setattr(compiler, name, value)
    module = tmp_path / "small.wasm"
    module.write_bytes(slow_module(4000))
    assert module.stat().st_size <= compiler.SMALL_MODULE
    await executor.prepare(wasm_request(tmp_path, module))
    assert started == ["compile", "compile"]


async def test_a_compiler_that_is_given_no_processor_is_killed(
    executor: WasmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "WALL_CLOCK_FACTOR", 0.001)
    with pytest.raises(ExecutorError, match="takes too long on this node") as caught:
        await executor.prepare(wasm_request(tmp_path, PROBE))
    assert not caught.value.permanent


async def test_the_process_of_a_job_does_not_compile(
    executor: WasmExecutor, tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiled module that vanishes between the start of a run and its loading."""
    asked = wasm_request(tmp_path, PROBE, "say", "fine", "")
    await executor.prepare(asked)
    described = WasmExecutor._described
    vanished = False

    async def vanishes(self, modules, request):  # type: ignore[no-untyped-def]
        nonlocal vanished
        found = await described(self, modules, request)
        if not vanished:
            os.unlink(found[0]["compiled"])  # noqa: PTH108
            vanished = True
        return found

    monkeypatch.setattr(WasmExecutor, "_described", vanishes)
    assert await executor.run(asked) == RunOutput(stdout=b"fine")
    assert started == ["compile", "run", "compile", "run"]
