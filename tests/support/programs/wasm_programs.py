"""WebAssembly programs for tests: the verbs of `tests/executors/wasm/probe.c`, and modules from text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput, RunRequest
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import NetworkSpec, SpecConfig
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.testing.executors import Program

PROBE = Path(__file__).parents[2] / "executors" / "wasm" / "probe.wasm"
MB = 1024**2


def probe(*arguments: str) -> Program:
    return Program(
        engine=SpecConfig(type="wasm", params={"EntryModule": "probe.wasm", "Parameters": list(arguments)}),
        inputs=[MountedInput(path=PROBE, target="/modules/probe.wasm")],
    )


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


def wasm_request(base: Path, module: Path, *arguments: str, **changes: Any) -> RunRequest:
    """A request to run this module as `/module.wasm`; `changes` are fields, or engine parameters."""
    number = len(list(base.glob("run-*")))
    folder = base / f"run-{number}"
    (folder / "work").mkdir(parents=True)
    (folder / "results").mkdir()
    params = {"EntryModule": "/module.wasm", "Parameters": list(arguments)}
    params |= {name: changes.pop(name) for name in list(changes) if name[0].isupper()}
    return RunRequest(
        **{
            "job_id": JobID("j-1"),
            "execution_id": ExecutionID(f"e-{number}"),
            "engine": SpecConfig(type="wasm", params=params),
            "inputs": [MountedInput(path=module, target="/module.wasm"), *changes.pop("more", ())],
            "result_paths": (),
            "environment": {},
            "resources": Resources(memory=64 * MB),
            "network": NetworkSpec(),
            "timeout": 60,
            "deterministic": False,
            "work": folder / "work",
            "results": folder / "results",
            **changes,
        }
    )


def wat(folder: Path, text: str, name: str = "module.wasm") -> Path:
    """A module from its text."""
    path = folder / name
    path.write_bytes(wasmtime.wat2wasm(text))
    return path


async def prepare_and_run(executor: WasmExecutor, asked: RunRequest) -> RunOutput:
    await executor.prepare(asked)
    return await executor.run(asked)


async def refused(executor: WasmExecutor, asked: RunRequest) -> str:
    """Why it could not be run, for a reason that is the same on every node."""
    with pytest.raises(ExecutorError) as caught:
        await prepare_and_run(executor, asked)
    assert caught.value.permanent, caught.value
    assert not (asked.results / "exitCode").exists()
    return str(caught.value)
