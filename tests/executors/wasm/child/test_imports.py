"""What modules may import, and in which order they are linked."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from tests.support.programs.wasm_programs import refused, wasm_request, wat

DOUBLE = '(module (func (export "double") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2))))'
QUADRUPLE = """(module (import "a" "double" (func $double (param i32) (result i32)))
  (func (export "double") (param i32) (result i32) (call $double (call $double (local.get 0)))))"""
PROGRAM = """(module
  (import "b" "double" (func $double (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (call $double (i32.const 21)))))"""


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
async def test_import_modules_may_be_listed_in_any_order(
    executor: WasmExecutor, tmp_path: Path, order: tuple[str, str]
) -> None:
    libraries = [
        MountedInput(path=wat(tmp_path, text, f"{name}.wasm"), target=f"/lib/{name}.wasm")
        for name, text in (("a", DOUBLE), ("b", QUADRUPLE))
    ]
    asked = wasm_request(
        tmp_path,
        wat(tmp_path, PROGRAM),
        more=libraries,
        ImportModules=[f"/lib/{name}.wasm" for name in order],
    )
    assert (await executor.run(asked)).exit_code == 84


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ('"wasi_unstable" "fd_write"', "rebuild it for wasi_snapshot_preview1"),
        ('"wbg" "x"', "built for a web page by wasm-bindgen"),
        ('"gojs" "x"', "GOOS=wasip1"),
        ('"env" "invoke_vi"', "-sSTANDALONE_WASM"),
        ('"env" "sqlite3_open"', "name its module in ImportModules"),
        ('"wasi_snapshot_preview1" "sock_open"', "jobs have no sockets"),
    ],
)
async def test_an_import_that_nobody_provides_names_its_cure(
    executor: WasmExecutor, tmp_path: Path, wanted: str, words: str
) -> None:
    module = wat(tmp_path, f'(module (import {wanted} (func)) (func (export "_start")))')
    assert words in await refused(executor, wasm_request(tmp_path, module))


async def test_notices_for_the_host_do_nothing(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(
        tmp_path,
        """(module (import "env" "emscripten_notify_memory_growth" (func $grown (param i32)))
        (func (export "_start") (call $grown (i32.const 0))))""",
    )
    assert (await executor.run(wasm_request(tmp_path, module))).exit_code == 0
