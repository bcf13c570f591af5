"""Components run as commands of WASI 0.2."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from tests.support.programs.wasm_programs import prepare_and_run, refused, wasm_request, wat

HELLO = r"""(component
  (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
  (alias export $errors "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $error (type $error0))
    (export "output-stream" (type $stream (sub resource)))
    (export "error" (type $error1 (eq $error0)))
    (type $fault0 (variant (case "last-operation-failed" (own $error1)) (case "closed")))
    (export "stream-error" (type $fault (eq $fault0)))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $stream)) (param "contents" (list u8)) (result (result (error $fault)))))))
  (alias export $streams "output-stream" (type $stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $stream (type $stream0))
    (export "output-stream" (type $stream1 (eq $stream0)))
    (export "get-stdout" (func (result (own $stream1))))))
  (core module $Libc
    (memory (export "memory") 1)
    (data (i32.const 0) "hello\n"))
  (core instance $libc (instantiate $Libc))
  (core func $get (canon lower (func $stdout "get-stdout")))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory (core memory $libc "memory"))))
  (core module $Main
    (import "libc" "memory" (memory 1))
    (import "host" "get" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (func (export "run") (result i32)
      (call $write (call $get) (i32.const 0) (i32.const 6) (i32.const 100))
      (i32.const RESULT)))
  (core instance $main (instantiate $Main
    (with "libc" (instance $libc))
    (with "host" (instance (export "get" (func $get)) (export "write" (func $write))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))"""
"""Prints `hello`, then does RESULT: 0 is success, 1 failure."""


@pytest.mark.parametrize(
    ("result", "code"), [("(i32.const 0)", 0), ("(i32.const 1)", 1), ("(unreachable)", 134)]
)
async def test_a_component_runs_as_a_command(
    executor: WasmExecutor, tmp_path: Path, result: str, code: int
) -> None:
    module = wat(tmp_path, HELLO.replace("(i32.const RESULT)", result), "command.wasm")
    output = await prepare_and_run(executor, wasm_request(tmp_path, module))
    assert (output.stdout, output.exit_code) == (b"hello\n", code)


async def test_a_component_that_is_no_command_is_refused(executor: WasmExecutor, tmp_path: Path) -> None:
    why = await refused(executor, wasm_request(tmp_path, wat(tmp_path, "(component)")))
    assert "does not export wasi:cli/run@0.2" in why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"deterministic": True}, "use the verifier noop"),
        ({"Entrypoint": "main"}, "has no entry point but wasi:cli/run"),
        ({"ImportModules": ["/lib.wasm"]}, "cannot be linked with ImportModules"),
    ],
)
async def test_what_a_component_cannot_do_is_said(
    executor: WasmExecutor, tmp_path: Path, changes: dict[str, object], why: str
) -> None:
    library = MountedInput(path=wat(tmp_path, "(module)", "lib.wasm"), target="/lib.wasm")
    module = wat(tmp_path, HELLO.replace("RESULT", "0"), "command.wasm")
    assert why in await refused(executor, wasm_request(tmp_path, module, more=[library], **changes))
