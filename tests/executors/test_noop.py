from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import Meter, RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import NetworkSpec, ResultPath, SpecConfig
from bacalhau_p2p.model.resources import Resources


def request(folder: Path, **params: Any) -> RunRequest:
    (folder / "work").mkdir()
    (folder / "results").mkdir()
    return RunRequest(
        job_id=JobID("j-1"),
        execution_id=ExecutionID("e-1"),
        engine=SpecConfig(type="noop", params=params),
        inputs=(),
        result_paths=(ResultPath(name="outputs", path="/outputs"),),
        environment={},
        resources=Resources(),
        network=NetworkSpec(),
        timeout=60,
        deterministic=False,
        work=folder / "work",
        results=folder / "results",
    )


async def test_the_results_folder_has_the_given_output(tmp_path: Path) -> None:
    output = await NoopExecutor().run(request(tmp_path, ExitCode=7, Stdout="é\n", Stderr="oh"))
    assert output == RunOutput(exit_code=7, stdout="é\n".encode(), stderr=b"oh")
    results = tmp_path / "results"
    assert (results / "stdout").read_text(encoding="utf-8") == "é\n"
    assert (results / "stderr").read_text() == "oh"
    assert (results / "exitCode").read_text() == "7"
    assert list((results / "outputs").iterdir()) == []


async def test_all_parameters_are_optional(tmp_path: Path) -> None:
    executor = NoopExecutor()
    assert await executor.unavailable() is None
    asked = request(tmp_path)
    await executor.prepare(asked)
    assert await executor.run(asked) == RunOutput()
    assert asked.meter == Meter(cpu_seconds=0.0, peak_memory=0)


@pytest.mark.parametrize(
    ("params", "faults"),
    [
        ({}, []),
        ({"ExitCode": 255, "Stdout": "", "Whatever": 1}, []),
        ({"ExitCode": 256}, ["Params.ExitCode: must be a number from 0 to 255"]),
        ({"ExitCode": True}, ["Params.ExitCode: must be a number from 0 to 255"]),
        ({"ExitCode": "0"}, ["Params.ExitCode: must be a number from 0 to 255"]),
        ({"Stdout": 1, "Stderr": []}, ["Params.Stdout: must be text", "Params.Stderr: must be text"]),
    ],
)
async def test_invalid_parameters_are_named_and_never_run(
    tmp_path: Path, params: dict[str, Any], faults: list[str]
) -> None:
    executor = NoopExecutor()
    asked = request(tmp_path, **params)
    assert [str(fault) for fault in executor.faults(asked.engine)] == faults
    if faults:
        with pytest.raises(ExecutorError) as caught:
            await executor.run(asked)
        assert caught.value.permanent
        assert list(asked.results.iterdir()) == []
