from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bacalhau_p2p.executors.wasm.executor import WasmExecutor


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[WasmExecutor]:
    executor = WasmExecutor(tmp_path / "cache")
    yield executor
    await executor.aclose()
