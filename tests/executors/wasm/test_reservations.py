"""What a run may use of what it reserved: CPU, and disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.errors import RunTimedOut
from bacalhau_p2p.executors.output_limits import TooMuchOutput
from bacalhau_p2p.executors.wasm import executor as wasm_executor
from bacalhau_p2p.executors.wasm.executor import WasmExecutor, cpu_seconds, niceness
from bacalhau_p2p.model.job import ResultPath
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.runtime.removal import remove_tree
from bacalhau_p2p.testing.executors import ExecutorKit, Pipe, running
from tests.support.processes import children, cpu_of_children
from tests.support.programs.wasm_programs import MB, PROBE, prepare_and_run, probe, wasm_request, wat
from tests.support.waiting import eventually

OUT = [ResultPath(name="out", path="/out")]

# Descriptor 3 is /out. $open makes a file or opens a folder; its descriptor is at 64.
COMMON = """
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $set_size (param i32 i64) (result i32)))
  (memory (export "memory") 1)
  (func $check (param i32) (if (local.get 0) (then unreachable)))
  (func $open (param $fd i32) (param $flags i32) (result i32)
    (call $check (call $path_open (local.get $fd) (i32.const 0) (i32.const 0) (i32.const 8)
      (local.get $flags)
      (select (i64.const 0x6200) (i64.const 0x1fffffff) (i32.eq (local.get $flags) (i32.const 2)))
      (i64.const 0x1fffffff) (i32.const 0) (i32.const 64)))
    (i32.load (i32.const 64)))
  (data (i32.const 0) "aaaaaaaa")
  (func (export "_start") (local $fd i32) (local $n i32) {})
)
"""
DEEP = """
    (local.set $fd (i32.const 4))
    (loop $deeper
      (call $check (call $mkdir (local.get $fd) (i32.const 0) (i32.const 8)))
      (local.set $fd (call $open (local.get $fd) (i32.const 2)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $deeper (i32.lt_u (local.get $n) (i32.const 3000))))
"""
MANY = """
    (loop $next
      (i64.store (i32.const 0) (i64.or (i64.const 0x4040404040404040)
        (i64.or (i64.and (i64.extend_i32_u (local.get $n)) (i64.const 0x0f0f0f0f0f0f0f0f))
          (i64.shl (i64.and (i64.extend_i32_u (local.get $n)) (i64.const 0xf0f0f0f0)) (i64.const 28)))))
      (call $check (call $close (call $open (i32.const 4) (i32.const 1))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br $next))
"""
SPARSE = """
    (loop $next
      (call $check (call $set_size (call $open (i32.const 4) (i32.const 1)) (i64.const 90000000)))
      (i32.store8 (i32.const 0) (i32.add (i32.const 0x61) (local.get $n)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $n) (i32.const 4))))
"""


@pytest.mark.parametrize(
    ("program", "disk", "reason"),
    [
        pytest.param(DEEP, 100 * MB, "nested more than 200 deep", id="3,000 nested folders"),
        pytest.param(MANY, MB, "the 1048576 bytes that it reserved", id="files without end"),
        pytest.param(SPARSE, 200_000_000, "the 200000000 bytes that it reserved", id="sparse files"),
    ],
)
async def test_a_run_with_too_much_output_fails_for_good(
    program: str, disk: int, reason: str, executor: WasmExecutor, tmp_path: Path
) -> None:
    module = wat(tmp_path, COMMON.replace("{}", program))
    resources = Resources(cpu=1, memory=64 * MB, disk=disk)
    asked = wasm_request(tmp_path, module, result_paths=OUT, resources=resources)
    try:
        with trio.fail_after(60), pytest.raises(TooMuchOutput, match=reason):
            await prepare_and_run(executor, asked)
    finally:
        remove_tree(asked.results)  # too deep for pytest


async def test_a_file_without_a_reservation_has_a_greatest_size(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    """100 GB that were never written took a minute to hash."""
    huge = SPARSE.replace("90000000", "100000000000")
    module = wat(tmp_path, COMMON.replace("{}", huge))
    asked = wasm_request(tmp_path, module, result_paths=OUT)
    assert (await prepare_and_run(executor, asked)).exit_code == 134  # it got EFBIG
    assert (asked.results / "out" / "aaaaaaaa").stat().st_size == 0


async def test_output_streams_count_as_disk(executor: WasmExecutor, tmp_path: Path) -> None:
    resources = Resources(cpu=1, memory=64 * MB, disk=MB)
    asked = wasm_request(tmp_path, PROBE, "flood", "20000", resources=resources)  # 1.28 MB
    with pytest.raises(TooMuchOutput):
        await prepare_and_run(executor, asked)
    asked = wasm_request(tmp_path, PROBE, "flood", "10000", resources=resources)
    assert (await prepare_and_run(executor, asked)).exit_code == 0


async def test_a_run_that_uses_up_its_cpu_time_is_ended(
    executor: WasmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wasm_executor, "LEAST_CPU_SECONDS", 1)
    module = wat(tmp_path, '(module (func (export "_start") (loop $l br $l)))')
    asked = wasm_request(tmp_path, module, resources=Resources(cpu=0.01, memory=64 * MB), timeout=100)
    with trio.fail_after(60), pytest.raises(RunTimedOut, match="more than the 1 s of CPU"):
        await prepare_and_run(executor, asked)


def test_cpu_time_and_share_follow_what_was_reserved() -> None:
    assert cpu_seconds(0, 60) == 0
    assert cpu_seconds(0.5, 60) == 30
    assert cpu_seconds(0.001, 60) == wasm_executor.LEAST_CPU_SECONDS
    assert [niceness(cpu) for cpu in (0, 0.001, 0.1, 0.5, 1, 8)] == [10, 19, 10, 3, 0, 0]


async def test_the_process_of_a_job_becomes_as_nice_as_it_reserved(tmp_path: Path) -> None:
    executor = WasmExecutor(tmp_path / "cache")
    kit = ExecutorKit(executor=executor, programs=None, folder=tmp_path)  # type: ignore[arg-type]
    pipe = Pipe(kit)
    request = kit.request(probe("hold", pipe.inside), inputs=[pipe.mount])
    try:
        async with running(kit, request, pipe):
            (warm,) = children(os.getpid())
            (job,) = children(warm)
            assert niceness(request.resources.cpu) == 3
            eventually(lambda: os.getpriority(os.PRIO_PROCESS, job) == 3)
    finally:
        await executor.aclose()


BURN = """
(module (func (export "_start") (local $n i64)
  (loop $l
    (local.set $n (i64.add (local.get $n) (i64.const 1)))
    (br_if $l (i64.lt_u (local.get $n) (i64.const 100000000))))))
"""


async def test_the_cpu_time_that_is_reported_is_that_which_the_kernel_counts(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    module = wat(tmp_path, BURN)
    await executor.prepare(wasm_request(tmp_path / "first", module))
    (warm,) = children(os.getpid())
    before, reported = cpu_of_children(warm), 0.0
    while (counted := cpu_of_children(warm) - before) < 1:
        asked = wasm_request(tmp_path / str(counted), module)
        await executor.run(asked)
        assert asked.meter.cpu_seconds is not None
        reported += asked.meter.cpu_seconds
    assert reported == pytest.approx(counted, rel=0.1)


async def test_a_run_that_is_ended_says_what_it_used(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(tmp_path, '(module (memory 1000) (func (export "_start") (loop $l br $l)))')
    asked = wasm_request(tmp_path, module, timeout=0.5)
    with pytest.raises(RunTimedOut):
        await prepare_and_run(executor, asked)
    assert asked.meter.cpu_seconds
    assert asked.meter.peak_memory
