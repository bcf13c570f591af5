"""Programs in C, Rust and Go, compiled for WASI by their own compilers, run unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.job import ResultPath, SpecConfig
from bacalhau_p2p.testing.executors import ExecutorKit, Program

SOURCES = Path(__file__).parent
TEXTS = {"one.txt": "to be or not to be", "two.txt": "that is the question, or not"}
DIFFERENT_WORDS = 8


@pytest.fixture
def go_module(tmp_path: Path) -> Path:
    if not shutil.which("go"):
        pytest.skip("no Go here: words.go is not compiled")
    module = tmp_path / "go.wasm"
    subprocess.run(
        ["go", "build", "-ldflags=-s -w", "-o", module, SOURCES / "words.go"],
        env={**os.environ, "GOOS": "wasip1", "GOARCH": "wasm", "GOTOOLCHAIN": "local"},
        check=True,
    )
    return module


@pytest.fixture
def rust_module(tmp_path: Path) -> Path:
    """Built from source where the compiler has the target."""
    module = tmp_path / "rust.wasm"
    rustc = shutil.which("rustc")
    command = [rustc, "--target=wasm32-wasip1", "-O", SOURCES / "words.rs", "-o", module]
    if not rustc or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no Rust with wasm32-wasip1 here: words.rs is not compiled")
    return module


async def check(module: Path, language: str, folder: Path, *, deterministic: bool) -> dict[str, bytes]:
    executor = WasmExecutor(folder / "cache")
    (folder / f"kit-{deterministic}").mkdir()
    kit = ExecutorKit(executor=executor, programs=None, folder=folder / f"kit-{deterministic}")  # type: ignore[arg-type]
    program = Program(
        engine=SpecConfig(
            type="wasm",
            params={
                "EntryModule": "words.wasm",
                "Parameters": ["a", "b c"],
                "EnvironmentVariables": {"GREETING": "hello"},
            },
        ),
        inputs=[MountedInput(path=module, target="/modules/words.wasm")],
    )
    request = kit.request(
        program,
        inputs=[kit.input_folder("/inputs", TEXTS)],
        result_paths=[ResultPath(name="outputs", path="/outputs")],
        deterministic=deterministic,
    )
    try:
        output = await kit.run(request)
    finally:
        await executor.aclose()
    assert (output.exit_code, output.stderr) == (7, b"")
    arguments = {"go": "[a b c]", "rust": '["a", "b c"]'}[language]
    assert output.stdout.decode() == f"{language}: {arguments} hello {DIFFERENT_WORDS}\n"
    written = (request.results / "outputs" / f"{language}.txt").read_text()
    assert written == f"written by {language.capitalize()}\n"
    return {path.name: path.read_bytes() for path in request.results.rglob("*") if path.is_file()}


@pytest.mark.parametrize("deterministic", [False, True])
async def test_a_rust_program_built_elsewhere_runs(tmp_path: Path, deterministic: bool) -> None:
    await check(SOURCES / "words_rust.wasm", "rust", tmp_path, deterministic=deterministic)


async def test_a_rust_program_runs(tmp_path: Path, rust_module: Path) -> None:
    await check(rust_module, "rust", tmp_path, deterministic=False)


async def test_a_go_program_runs_with_its_scheduler_and_clock(tmp_path: Path, go_module: Path) -> None:
    """Also in deterministic mode, in which its timers must fire although no time passes."""
    plain = await check(go_module, "go", tmp_path, deterministic=False)
    assert await check(go_module, "go", tmp_path, deterministic=True) == plain
