"""How a guest is started, and how its run ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.job import ResultPath
from bacalhau_p2p.model.resources import Resources
from tests.support.programs.wasm_programs import MB, PROBE, refused, wasm_request, wat


async def test_a_missing_entry_point_is_reported_with_the_exported_functions(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    module = wat(
        tmp_path, '(module (func (export "run")) (func (export "help")) (memory (export "memory") 1))'
    )
    asked = wasm_request(tmp_path, module)
    assert await refused(executor, asked) == (
        "module.wasm exports no function '_start'; exported functions: help, run"
    )
    asked = wasm_request(tmp_path, module, Entrypoint="memory")
    assert "exports no function 'memory'" in await refused(executor, asked)
    assert (await executor.run(wasm_request(tmp_path, module, Entrypoint="run"))).exit_code == 0


async def test_an_entry_point_with_parameters_is_refused(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(tmp_path, '(module (func (export "_start") (param i32)))')
    assert "takes 1 parameters; it must take none" in await refused(executor, wasm_request(tmp_path, module))


async def test_a_missing_import_is_named(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(tmp_path, '(module (import "env" "telephone" (func)) (func (export "_start")))')
    why = await refused(executor, wasm_request(tmp_path, module))
    assert "`env::telephone`" in why
    assert "\n" not in why


async def test_a_module_whose_initial_memory_exceeds_the_limit_is_refused(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    module = wat(tmp_path, '(module (memory 2000) (func (export "_start")))')
    assert "memory" in await refused(executor, wasm_request(tmp_path, module))


async def test_a_trap_is_a_result_with_its_reason_on_stderr(executor: WasmExecutor, tmp_path: Path) -> None:
    asked = wasm_request(tmp_path, PROBE, "trap")
    output = await executor.run(asked)
    assert output.exit_code == 134
    assert b"wasm `unreachable` instruction executed" in output.stderr
    assert (asked.results / "exitCode").read_text() == "134"
    assert (asked.results / "stderr").read_bytes() == output.stderr


async def test_a_trap_of_a_deterministic_run_has_no_words_of_the_engine(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    """Other engines, and other versions of this one, describe a trap differently."""
    output = await executor.run(wasm_request(tmp_path, PROBE, "trap", deterministic=True))
    assert (output.exit_code, output.stderr) == (134, b"trap\n")


async def test_a_trap_at_instantiation_is_a_result_too(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(tmp_path, '(module (func $f unreachable) (start $f) (func (export "_start")))')
    assert (await executor.run(wasm_request(tmp_path, module))).exit_code == 134


async def test_endless_recursion_traps(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(tmp_path, '(module (func $f (export "_start") (call $f)))')
    output = await executor.run(wasm_request(tmp_path, module))
    assert output.exit_code == 134
    assert b"call stack exhausted" in output.stderr


async def test_output_before_a_trap_is_kept(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(
        tmp_path,
        """(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "\\10\\00\\00\\00\\05\\00\\00\\00")
          (data (i32.const 16) "hello")
          (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            unreachable))""",
    )
    output = await executor.run(wasm_request(tmp_path, module))
    assert (output.exit_code, output.stdout) == (134, b"hello")


async def test_memory_cannot_grow_beyond_its_limit(executor: WasmExecutor, tmp_path: Path) -> None:
    for limit in (16, 48):
        output = await executor.run(
            wasm_request(tmp_path, PROBE, "eat", "1000", resources=Resources(memory=limit * MB))
        )
        assert output.exit_code == 3
        assert limit * 0.8 < int(output.stdout) < limit


async def test_a_file_beyond_the_disk_limit_fails_the_run_for_good(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(2 * MB))
    asked = wasm_request(
        tmp_path,
        PROBE,
        "copy",
        "/data/big",
        "/out/big",
        more=[MountedInput(path=big, target="/data/big")],
        result_paths=[ResultPath(name="out", path="/out")],
        resources=Resources(memory=64 * MB, disk=MB),
    )
    with pytest.raises(ExecutorError, match="more than the 1048576 bytes that it reserved") as failed:
        await executor.run(asked)
    assert failed.value.permanent
    assert (asked.results / "out" / "big").stat().st_size <= MB


async def test_a_reactor_is_initialized_before_its_entry_point_is_called(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    module = wat(
        tmp_path,
        """(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (global $state (mut i32) (i32.const 1))
          (memory (export "memory") 1)
          (func (export "_initialize") (global.set $state (i32.const 7)))
          (func (export "work") (call $exit (global.get $state))))""",
    )
    assert (await executor.run(wasm_request(tmp_path, module, Entrypoint="work"))).exit_code == 7


@pytest.mark.parametrize(("depth", "code"), [(250_000, 0), (100_000_000, 134)])
async def test_calls_may_nest_to_a_stack_of_16_mib(
    executor: WasmExecutor, tmp_path: Path, depth: int, code: int
) -> None:
    module = wat(
        tmp_path,
        f"""(module (func $down (param i32) (result i32)
          (if (result i32) (local.get 0)
            (then (i32.add (i32.const 1) (call $down (i32.sub (local.get 0) (i32.const 1)))))
            (else (i32.const 0))))
        (func (export "_start") (drop (call $down (i32.const {depth})))))""",
    )
    output = await executor.run(wasm_request(tmp_path, module))
    assert (output.exit_code, b"stack" in output.stderr) == (code, code != 0)
