"""Which input is the module that a job names."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.execution import RunOutput
from tests.support.programs.wasm_programs import PROBE, refused, wasm_request, wat

DOUBLE = '(module (func (export "double") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2))))'


def user_of(name: str) -> str:
    return f"""(module
      (import "{name}" "double" (func $double (param i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (func (export "_start") (call $exit (call $double (i32.const 21)))))"""


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        *(("math", ""), ("math.wasm", ""), ("/lib/math.wasm", ""), ("arithmetic", "arithmetic")),
        *(("x", ""), ("x.wasm", "arithmetic")),
    ],
)
async def test_import_modules_have_the_names_alias_target_and_file_name(
    executor: WasmExecutor, tmp_path: Path, name: str, alias: str
) -> None:
    library = MountedInput(path=wat(tmp_path, DOUBLE, "x"), target="/lib/math.wasm", alias=alias)
    asked = wasm_request(
        tmp_path, wat(tmp_path, user_of(name)), more=[library], ImportModules=["/lib/math.wasm"]
    )
    assert (await executor.run(asked)).exit_code == 42


@pytest.mark.parametrize(
    ("wanted", "target", "alias", "inside"),
    [
        ("entry", "/anywhere", "entry", ""),
        ("/bin/app.wasm", "/bin/app.wasm", "", ""),
        ("bin/app.wasm", "/bin/app.wasm", "", ""),
        ("app.wasm", "/bin/app.wasm", "", ""),
        ("entry", "/modules", "entry", "whatever.wasm"),
        ("/modules", "/modules", "", "whatever.wasm"),
        ("/modules/deep/app.wasm", "/modules", "", "deep/app.wasm"),
        ("app.wasm", "/modules", "", "app.wasm"),
    ],
)
async def test_the_entry_module_is_found_by_alias_target_path_or_file_name(
    executor: WasmExecutor, tmp_path: Path, wanted: str, target: str, alias: str, inside: str
) -> None:
    path = PROBE
    if inside:
        path = tmp_path / "folder"
        (path / inside).parent.mkdir(parents=True)
        (path / inside).write_bytes(PROBE.read_bytes())
        (path / "README").write_text("not a module")
    source = MountedInput(path=path, target=target, alias=alias)
    output = await executor.run(
        wasm_request(tmp_path, path, "say", "found", "", EntryModule=wanted, inputs=[source])
    )
    assert output == RunOutput(stdout=b"found")


async def test_a_missing_or_ambiguous_module_is_refused(executor: WasmExecutor, tmp_path: Path) -> None:
    two = tmp_path / "two"
    two.mkdir()
    (two / "a.wasm").write_bytes(b"")
    (two / "b.wasm").write_bytes(b"")
    secret = tmp_path / "secret.wasm"
    secret.write_bytes(PROBE.read_bytes())
    links = tmp_path / "links"
    links.mkdir()
    (links / "app.wasm").symlink_to(secret)

    async def why(wanted: str, *inputs: tuple[Path, str, str]) -> str:
        mounted = [MountedInput(path=path, target=target, alias=alias) for path, target, alias in inputs]
        return await refused(executor, wasm_request(tmp_path, PROBE, EntryModule=wanted, inputs=mounted))

    assert await why("app.wasm") == "no input has the module 'app.wasm'; inputs: none"
    assert (
        await why("app.wasm", (PROBE, "/x.wasm", ""), (PROBE, "/y.wasm", "other"))
        == "no input has the module 'app.wasm'; inputs: /x.wasm, other"
    )
    assert "folder with 2 .wasm files" in await why("/in", (two, "/in", ""))
    assert "several inputs" in await why("x.wasm", (PROBE, "/a/x.wasm", ""), (PROBE, "/b/x.wasm", ""))
    for wanted in ("app.wasm", "/in/app.wasm", "/in", "/in/../secret.wasm"):
        assert "no input has" in (said := await why(wanted, (links, "/in", ""))) or "0 .wasm" in said


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "bad.wasm is not a WebAssembly module"),
        (b"#!/bin/sh\n", "bad.wasm is not a WebAssembly module"),
        (b'(module (func (export "_start")))', "bad.wasm is not a WebAssembly module"),
        (b"\0asm\x01\0\0\0garbage", "bad.wasm is not a valid WebAssembly module: "),
        (PROBE.read_bytes()[:20_000], "bad.wasm is not a valid WebAssembly module: "),
    ],
)
async def test_a_file_that_is_not_a_module_is_refused_during_preparation(
    executor: WasmExecutor, tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "anything"
    path.write_bytes(content)
    asked = wasm_request(
        tmp_path, path, EntryModule="/bad.wasm", inputs=[MountedInput(path=path, target="/bad.wasm")]
    )
    with pytest.raises(ExecutorError) as caught:
        await executor.prepare(asked)
    assert caught.value.permanent
    assert str(caught.value).startswith(why)
    assert "\n" not in str(caught.value)
