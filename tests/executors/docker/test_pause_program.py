"""The program that only waits is a program."""

from __future__ import annotations

import platform
import signal
import subprocess
from pathlib import Path

import pytest

from bacalhau_p2p.executors.docker.pause_program import pause_program
from tests.support.waiting import eventually


def test_it_waits_until_it_is_killed_without_using_the_processor(tmp_path: Path) -> None:
    program = pause_program()
    if program is None:
        pytest.skip(f"there is none for {platform.machine()}")
    path = tmp_path / "pause"
    path.write_bytes(program)
    path.chmod(0o755)
    process = subprocess.Popen([path])
    try:
        eventually(lambda: state(process.pid) == "S" and name(process.pid) == "pause")
        assert process.poll() is None
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_its_headers_say_how_large_it_is_and_where_it_starts(machine: str) -> None:
    program = pause_program(machine)
    assert program is not None
    entry = int.from_bytes(program[24:32], "little") - 0x400000
    assert (program[:4], entry) == (b"\x7fELF", 120)
    assert int.from_bytes(program[96:104], "little") == len(program) < 160


def test_there_is_none_for_other_machines() -> None:
    assert pause_program("riscv64") is None
