"""WASI's clock and random bytes in deterministic mode."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from tests.support.programs.wasm_programs import PROBE, wasm_request, wat


async def test_clock_and_random_bytes_repeat_only_in_deterministic_mode(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    async def rng(deterministic: bool) -> list[bytes]:
        output = await executor.run(wasm_request(tmp_path, PROBE, "chance", deterministic=deterministic))
        assert output.exit_code == 0
        return output.stdout.split()

    first, second = await rng(True), await rng(True)
    assert first == second
    assert first[1:] == [b"1000000000.000001000", b"0.000002000", b"7ff8000000000000"]
    third, fourth = await rng(False), await rng(False)
    assert len({first[0], third[0], fourth[0]}) == 3
    assert float(third[1]) > 1.7e9
    assert third[1] != fourth[1]


async def test_two_executors_produce_equal_results(tmp_path: Path) -> None:
    outputs = []
    for name in ("one", "two"):
        executor = WasmExecutor(tmp_path / name)
        try:
            asked = wasm_request(
                tmp_path, PROBE, "chance", deterministic=True, environment={"B": "1", "A": "2"}
            )
            await executor.run(asked)
            outputs.append({path.name: path.read_bytes() for path in asked.results.iterdir()})
        finally:
            await executor.aclose()
    assert outputs[0] == outputs[1]


async def test_sleeping_takes_no_time_in_deterministic_mode(executor: WasmExecutor, tmp_path: Path) -> None:
    with trio.fail_after(60):
        output = await executor.run(wasm_request(tmp_path, PROBE, "doze", "86400", deterministic=True))
    assert (output.exit_code, output.stdout) == (0, b"86400000\n")


async def test_random_bytes_beyond_the_guests_memory_are_an_error(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    module = wat(
        tmp_path,
        """(module
          (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1)
          (func (export "_start") (call $exit (call $random (i32.const 65530) (i32.const 7)))))""",
    )
    assert (await executor.run(wasm_request(tmp_path, module, deterministic=True))).exit_code == 21  # EFAULT


@pytest.mark.parametrize(("given", "code"), [("256", 256), ("-1", 2**32 - 1), (str(-(2**31)), 2**31)])
async def test_exit_codes_keep_all_their_bits(
    executor: WasmExecutor, tmp_path: Path, given: str, code: int
) -> None:
    assert (await executor.run(wasm_request(tmp_path, PROBE, "exit", given))).exit_code == code
