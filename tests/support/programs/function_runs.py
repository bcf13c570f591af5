"""Runs a function as its job does, but in a process of this Python: quick, and without a network."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bacalhau_p2p.functions.encoding import encode_call, read_answer
from bacalhau_p2p.functions.remote import as_remote


@dataclass(frozen=True)
class Run:
    exit_code: int
    stdout: str
    stderr: str
    answer: bytes
    value: Any


def run_function(function: object, *args: object, folder: Path, **kwargs: object) -> Run:
    """`value` is what the function returned. Raises RemoteError for what it raised."""
    captured, bundle = as_remote(function).capture()  # type: ignore[arg-type]
    bundle.write(folder / "function")
    (folder / "value").mkdir()
    call, placed = encode_call(args, kwargs, captured.classes)
    assert not placed.targets
    (folder / "call.json").write_bytes(call)
    program = [folder / "function" / "run.py", folder / "call.json", folder / "value"]
    done = subprocess.run(
        [sys.executable, "-E", "-s", *map(str, program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (folder / "value" / "value.json").exists(), done.stderr
    answer = (folder / "value" / "value.json").read_bytes()
    return Run(done.returncode, done.stdout, done.stderr, answer, read_answer(answer, captured.classes))
