"""The output of a job, longer than is kept, and on a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.results import KeptStream, write_failed
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from tests.support.programs.wasm_programs import PROBE, wasm_request


async def test_output_beyond_the_limit_is_dropped_and_the_job_continues(tmp_path: Path) -> None:
    executor = WasmExecutor(tmp_path / "cache", stream_limit=100_000)
    try:
        asked = wasm_request(tmp_path, PROBE, "flood", "100000")
        output = await executor.run(asked)
    finally:
        await executor.aclose()
    assert output.exit_code == 0
    assert (output.stdout_truncated, output.stderr_truncated) == (True, True)
    assert (asked.results / "stdout").stat().st_size == 100_000
    assert (asked.results / "stderr").stat().st_size == 100_000


async def test_a_full_disk_is_not_a_permanent_failure(
    executor: WasmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(stream: KeptStream, data: bytes) -> None:
        raise write_failed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    monkeypatch.setattr(KeptStream, "write", full)
    asked = wasm_request(tmp_path, PROBE, "flood", "1000000000")
    await executor.prepare(asked)
    with pytest.raises(ExecutorError, match="No space left") as caught:
        await executor.run(asked)
    assert not caught.value.permanent
