"""A job that breaks out of WebAssembly into its process, on a whole executor. Covers `reports`."""

from __future__ import annotations

import json
import os
import socket
import textwrap
from pathlib import Path

import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.wasm import processes as wasm_processes
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import ResultPath
from tests.support.programs.wasm_programs import PROBE, prepare_and_run, wasm_request

REPOSITORY = Path(__file__).parents[3]

# The real warm process. In its jobs, loading the compiled module runs `escaped` instead.
WARM = """
import json, os, sys
from pathlib import Path
sys.path += sys.argv[1:3]
sys.path.append(REPOSITORY)
import wasmtime
from bacalhau_p2p.executors.wasm.child.warm_process import run
from tests.support.programs.escape_attempts import Targets, open_descriptors, succeeding_attempts

def escaped(engine, code):
    try:
        ACTION
    finally:
        os._exit(0)

wasmtime.Module.deserialize = escaped
run(int(sys.argv[3]))
"""


def break_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, action: str) -> None:
    """Let every job do `action`, in its process."""
    script = tmp_path / "warm.py"
    text = WARM.replace("REPOSITORY", repr(str(REPOSITORY)))
    script.write_text(text.replace("ACTION", textwrap.indent(textwrap.dedent(action), " " * 8).strip()))
    monkeypatch.setattr(wasm_processes, "_SCRIPT", script)


async def test_a_program_that_escapes_can_do_nothing(
    executor: WasmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("the key")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "api.sock"))
        local.listen()
        break_out(
            monkeypatch,
            tmp_path,
            f"""
            place = Path({str(tmp_path)!r})
            opened = open_descriptors()
            targets = Targets(secret=place / "secret", other_job=place, node={os.getpid()},
                port={server.getsockname()[1]}, unix_socket=place / "api.sock", output=opened[-1])
            os.write(1, json.dumps([succeeding_attempts(targets), len(opened)]).encode())
            """,
        )
        asked = wasm_request(tmp_path, PROBE, result_paths=[ResultPath(name="out", path="/out")])
        with pytest.raises(ExecutorError):  # it never reports
            await prepare_and_run(executor, asked)
    succeeded, opened = json.loads((asked.results / "stdout").read_text())
    assert succeeded == []
    assert opened == 3, "the socket for its report, its output folder and its working folder"


@pytest.mark.parametrize(
    "report",
    [
        b"no JSON",
        b"[" * 10_000,
        b'"text"',
        b"{}",
        b'{"exit": "text"}',
        b'{"exit": 1e400}',
        b'{"exit": -1}',
        b'{"exit": true}',
        b'{"stale": "../../secret"}',
        b'{"stale": ["a"]}',
        b'{"failed": 7, "permanent": true}',
        b'{"failed": "x"}',
        b'{"failed": "\\u001b]0;title\\u0007", "permanent": "yes"}',
        b'{"status": -999}',
        b'{"status": "text"}',
        b'{"refused": {}, "pid": []}',
        b"x" * 60_000,
    ],
)
async def test_a_forged_report_is_the_failure_of_its_run(
    report: bytes, executor: WasmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_out(monkeypatch, tmp_path, f"os.write(open_descriptors()[0], {report!r})")
    asked = wasm_request(tmp_path, PROBE)
    with pytest.raises(ExecutorError) as caught:
        await prepare_and_run(executor, asked)
    assert "\x1b" not in str(caught.value)
    assert not caught.value.permanent
    monkeypatch.undo()
    await executor.aclose()


async def test_a_forged_exit_code_is_that_of_its_own_run(
    executor: WasmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_out(monkeypatch, tmp_path, """os.write(open_descriptors()[0], b'{"exit": 3}')""")
    asked = wasm_request(tmp_path, PROBE)
    assert await prepare_and_run(executor, asked) == RunOutput(exit_code=3)
