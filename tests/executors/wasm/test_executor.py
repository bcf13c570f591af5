"""The conformance suite for executors, and the parameters of the engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.testing.executors import EXECUTOR_CHECKS, Check, ExecutorKit
from tests.support.processes import children, open_files
from tests.support.programs.wasm_programs import PROBE, WasmPrograms, refused, wasm_request


@pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
async def test_wasm_executor_conforms(check: Check, tmp_path: Path) -> None:
    executor = WasmExecutor(tmp_path / "cache")
    try:
        assert await executor.unavailable() is None
        (tmp_path / "kit").mkdir()
        await check(ExecutorKit(executor=executor, programs=WasmPrograms(), folder=tmp_path / "kit"))
    finally:
        await executor.aclose()


@pytest.mark.parametrize(
    ("params", "faults"),
    [
        ({"EntryModule": "/a.wasm"}, []),
        (
            {
                "EntryModule": "/a.wasm",
                "Entrypoint": "go",
                "Parameters": ["a", ""],
                "EnvironmentVariables": {"A": "b"},
                "ImportModules": ["/b.wasm"],
            },
            [],
        ),
        ({}, ["Params.EntryModule"]),
        ({"EntryModule": 3}, ["Params.EntryModule"]),
        ({"EntryModule": "/a", "Parameters": "one two"}, ["Params.Parameters"]),
        ({"EntryModule": "/a", "Parameters": ["a\0b"]}, ["Params.Parameters[0]"]),
        ({"EntryModule": "/a", "Surprise": 1}, ["Params.Surprise"]),
    ],
)
async def test_faults_are_named_by_their_path(
    executor: WasmExecutor, tmp_path: Path, params: dict[str, Any], faults: list[str]
) -> None:
    engine = SpecConfig(type="wasm", params=params)
    assert [fault.path for fault in executor.faults(engine)] == faults
    if faults:
        assert faults[0] in await refused(executor, wasm_request(tmp_path, PROBE, engine=engine))


async def test_variables_of_the_engine_override_those_of_the_task(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    asked = wasm_request(
        tmp_path, PROBE, "variable", "A", environment={"A": "task"}, EnvironmentVariables={"A": "engine"}
    )
    assert (await executor.run(asked)).stdout == b"engine"


async def test_runs_leave_no_files_open(executor: WasmExecutor, tmp_path: Path) -> None:
    async def some() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(executor.run, wasm_request(tmp_path, PROBE, "exit", "0"))

    await some()
    (warm,) = children(os.getpid())
    before = open_files(), open_files(warm)
    await some()
    assert (open_files(), open_files(warm)) == before
    assert children(warm) == []
