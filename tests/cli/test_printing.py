"""What strangers wrote reaches the user's terminal as text: it moves no cursor and sets no clipboard."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bacalhau_p2p.cli
from bacalhau_p2p.cli import printing
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.state import JobState
from tests.support.servers import fake_node as fake

PROGRAM = [sys.executable, "-c", "from bacalhau_p2p.cli import main; main()"]
ID = "095be3fd-7c4e-4b6f-9d2e-000000000001"
EVIL = "\x1b]0;title\x07\x1b]52;c;cm0gLXJmIH4K\x07\x1b[2J\x1b[1;1H\x9b31m\u202eAll is well\u2066\x7f"
HARMFUL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

OURS = re.compile("\x1b\\[(?:3[1-6]m|0m|[0-9]+A|J)")
"""Colours, and the commands that draw lines again; none of them is in `EVIL`."""


def in_terminal(port: int, *arguments: str) -> str:
    """What a command writes to a real terminal, stdout and stderr together."""
    main, terminal = pty.openpty()
    environment = {**os.environ, "BACALHAU_P2P_API_HOST": "127.0.0.1", "BACALHAU_P2P_API_PORT": str(port)}
    with subprocess.Popen(
        [*PROGRAM, *arguments], stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    ):
        os.close(terminal)
        written = b""
        while piece := _read(main):
            written += piece
    os.close(main)
    return written.decode()


def _read(main: int) -> bytes:
    try:
        return os.read(main, 65536)
    except OSError:  # EIO: the command has closed its end
        return b""


def assert_harmless(text: str) -> None:
    assert "All is well" in text
    assert HARMFUL.findall(OURS.sub("", text)) == []


@pytest.fixture
def evil_node(fake_node, results, monkeypatch):
    """A node that passes on what strangers call states, reasons, ids and CIDs."""
    original = fake.execution_to_json

    def altered(execution: Any, *spec: Any) -> dict[str, Any]:
        item = original(execution, *spec)
        item["ResultCID"] = EVIL
        item["NodeID"] = EVIL
        item["ComputeState"]["Message"] = EVIL
        return item

    monkeypatch.setattr(fake, "execution_to_json", altered)
    fake_node.add_job(ID, {"Name": EVIL, "Tasks": [{"Engine": {"Type": "noop"}}]})
    evil = EVIL.encode()
    fake_node.complete(ID, results, RunOutput(exit_code=1, stdout=evil + b"\n", stderr=evil))
    return fake_node


@pytest.mark.parametrize("arguments", [("describe", ID), ("describe", ID, "--output", "json")])
def test_a_job_that_is_shown_commands_no_terminal(evil_node, arguments):
    assert_harmless(in_terminal(evil_node.port, *arguments))


def test_a_list_commands_no_terminal(fake_node):
    task = {"Engine": {"Type": "docker", "Params": {"Image": "x", "Parameters": [EVIL]}}}
    fake_node.add_job(ID, {"Tasks": [task]})
    assert_harmless(in_terminal(fake_node.port, "list", "--wide"))


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.QUEUED, JobState.STOPPED])
def test_reasons_of_strangers_command_no_terminal(fake_node, results, state):
    def end(job: Any) -> None:
        if state is JobState.QUEUED:
            fake_node.set_state(job.id, state, EVIL)
            fake_node.respond_early = True
            fake_node.complete(job.id, results)
            fake_node.set_state(job.id, JobState.FAILED, EVIL)
        else:
            fake_node.set_state(job.id, state, EVIL)

    fake_node.on_submit = end
    assert_harmless(in_terminal(fake_node.port, "docker", "run", "busybox"))


def test_the_output_of_a_job_commands_no_terminal(fake_node, results):
    def end(job: Any) -> None:
        output = RunOutput(exit_code=1, stdout=b"a\tb\n" + EVIL.encode(), stderr=EVIL.encode())
        fake_node.complete(job.id, results, output)

    fake_node.on_submit = end
    shown = in_terminal(fake_node.port, "docker", "run", "busybox")
    assert_harmless(shown)
    assert shown.count("All is well") == 2
    assert "a\tb\r\n" in shown


@pytest.mark.parametrize("status", [400, 500])
def test_an_error_of_the_node_commands_no_terminal(fake_node, status):
    fake_node.raw_response = (status, b'{"Message": "\\u001b[2J\\u202eAll is well", "Kind": "\\u009b"}')
    assert_harmless(in_terminal(fake_node.port, "list"))


def test_a_bug_quotes_nothing_that_commands_a_terminal(capsys):
    def cell() -> None:
        raise ZeroDivisionError(EVIL)

    with pytest.raises(ZeroDivisionError) as raised:
        cell()
    bacalhau_p2p.cli.error_report.print_traceback(raised.type, raised.value, raised.tb)
    shown = capsys.readouterr().err
    assert_harmless(shown)
    assert "in cell\n" in shown


def test_programs_read_the_output_of_a_job_as_it_is(run, fake_node, results):
    def end(job: Any) -> None:
        fake_node.complete(job.id, results, RunOutput(stdout=b"\x1b[1mbold\n", stderr=b"\x07"))

    fake_node.on_submit = end
    result = run("docker", "run", "busybox")
    assert "\x1b[1mbold\n" in result.stdout
    assert "\x07" in result.stderr


def test_a_line_cannot_be_two(capsys):
    printing.print_line("reason\nError: forged", err=True)
    assert capsys.readouterr().err == "reason\ufffdError: forged\n"


def test_output_that_is_no_text_is_printed_nevertheless(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr("sys.stdout", stream)
    printing.print_output("\ud800")
    stream.flush()
    assert stream.buffer.getvalue() == b"?\n"


def test_every_command_prints_through_one_module():
    folder = Path(bacalhau_p2p.cli.__file__).parent
    others = [file for file in folder.glob("*.py") if file.name != "printing.py"]
    assert len(others) > 15
    direct = re.compile(r"click\.(echo|secho)|\bprint\(|sys\.std(out|err)\.write")
    assert [file.name for file in others if direct.search(file.read_text())] == []
