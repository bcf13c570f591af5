"""The WebAssembly executor keeps the promises of every executor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.testing.executors import EXECUTOR_CHECKS, Check, ExecutorKit, Program

PROBE = Path(__file__).parent / "probe.wasm"


class WasmPrograms:
    """What the suite asks for, as verbs of `wasm/probe.c`."""

    def probe(self, *arguments: str) -> Program:
        return Program(
            engine=SpecConfig(
                type="wasm", params={"EntryModule": "probe.wasm", "Parameters": list(arguments)}
            ),
            inputs=[MountedInput(path=PROBE, target="/modules/probe.wasm")],
        )

    def exit_with(self, code: int) -> Program:
        return self.probe("exit", str(code))

    def say(self, stdout: str, stderr: str) -> Program:
        return self.probe("say", stdout, stderr)

    def flood(self, lines: int) -> Program:
        return self.probe("flood", str(lines))

    def copy(self, source: str, target: str) -> Program:
        return self.probe("copy", source, target)

    def write(self, path: str, text: str) -> Program:
        return self.probe("write", path, text)

    def print_variable(self, name: str) -> Program:
        return self.probe("variable", name)

    def print_arguments(self, arguments: Sequence[str]) -> Program:
        return self.probe("arguments", *arguments)

    def hold(self, path: str) -> Program:
        return self.probe("hold", path)

    def spin(self, path: str) -> Program:
        return self.probe("spin", path)


@pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
async def test_wasm_executor(check: Check, tmp_path: Path) -> None:
    executor = WasmExecutor(tmp_path / "cache")
    try:
        assert await executor.unavailable() is None
        (tmp_path / "kit").mkdir()
        await check(ExecutorKit(executor=executor, programs=WasmPrograms(), folder=tmp_path / "kit"))
    finally:
        await executor.aclose()
