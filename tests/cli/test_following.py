"""A job that is followed: on a terminal its executions move below its output, in a pipe there are plain lines
(`following`)."""

from __future__ import annotations

import os
import sys

import pytest

from bacalhau_p2p.cli import following
from bacalhau_p2p.cli.node_away import NODE_AWAY
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.logs import LogPiece, LogStream
from tests.support.programs.on_terminal import OnTerminal
from tests.support.servers.fake_node import FakeNode

PROGRAM = [sys.executable, "-c", "from bacalhau_p2p.cli import main; main()"]
JOB = ("docker", "run", "busybox:latest", "true")
NODE = "12D3KooW7xPqLm4c"


def environ(fake_node, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BACALHAU", "NO_COL"))}
    address = {"BACALHAU_P2P_API_HOST": "127.0.0.1", "BACALHAU_P2P_API_PORT": str(fake_node.port)}
    return {**kept, **address, "TERM": "xterm-256color", **more}


@pytest.fixture
def writes(fake_node):
    """Each new job is accepted at once and writes this."""

    def write(*pieces: tuple[LogStream, bytes]) -> None:
        def accept(job) -> None:
            fake_node.tell(job.id, EventKind.SUBMITTED, "submitted", "Pending")
            fake_node.tell(job.id, EventKind.ACCEPTED, "", "BidAccepted", "e-1", NODE)
            ends = dict.fromkeys(LogStream, 0)
            fake_node.logs[job.id] = written = []
            for stream, data in pieces:
                written.append(LogPiece("e-1", stream, ends[stream], data))
                ends[stream] += len(data)

        fake_node.on_submit = accept

    return write


def end(fake_node, results, output: RunOutput | None = None) -> str:
    """Complete the only job; returns its CID."""
    (job_id,) = fake_node.jobs
    fake_node.tell(job_id, EventKind.PUBLISHED, "", "Completed", "e-1", NODE)
    fake_node.tell(job_id, EventKind.ENDED, "", "Completed")
    return str(fake_node.complete(job_id, results, output or RunOutput(stdout=b"never shown")))


@pytest.mark.parametrize("columns", [80, 160])
def test_a_line_for_each_execution_moves_below_the_output(fake_node, results, writes, columns):
    out, err = LogStream.STDOUT, LogStream.STDERR
    writes((out, b"first\nsec"), (out, b"ond\nunfin"), (err, b"oops\n"))
    with OnTerminal([*PROGRAM, *JOB], environ(fake_node), columns=columns) as terminal:
        *_, unfinished, job, execution = terminal.wait_for("Running  ")
        (job_id,) = fake_node.jobs
        assert terminal.lines[:-3] == [job_id, "first", "second", "oops"]
        assert unfinished == "unfin"
        assert job.startswith(f"Job {job_id[:8]}  Pending  ")
        assert execution.split()[:4] == ["e-1", "on", "7xPqLm4c", "Running"]
        cid = end(fake_node, results)
        lines = terminal.wait_for("To see the details")
    assert lines[:5] == [job_id, "first", "second", "oops", "unfin"]
    assert lines[5].split()[:4] == ["e-1", "on", "7xPqLm4c", "Completed"]
    assert lines[6:] == [
        f"Result: ipfs://{cid}",
        f"To get the results:  bacalhau-p2p get {job_id[:8]}",
        f"To see the details:  bacalhau-p2p describe {job_id[:8]}",
    ]
    assert b"\x1b[32mCompleted" in terminal.written
    assert terminal.process.returncode == 0


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_colours_are_left_out_where_they_are_not_wanted(fake_node, results, writes, setting):
    writes((LogStream.STDOUT, b"first\n"))
    flags = () if setting else ("--no-color",)
    with OnTerminal([*PROGRAM, *flags, *JOB], environ(fake_node, **setting)) as terminal:
        fake_node.wait_until(lambda: fake_node.jobs and fake_node.waiting >= 1)
        end(fake_node, results, RunOutput(stdout=b"first\n"))
        lines = terminal.wait_for("To see the details")
    if "TERM" in setting:
        assert [line.split()[0] for line in lines][-5:] == ["Completed", "first", "Result:", "To", "To"]
    else:
        assert [line.split()[0] for line in lines][1:] == ["first", "e-1", "Result:", "To", "To"]
    assert b"\x1b[3" not in terminal.written
    if "TERM" in setting:
        assert b"\x1b" not in terminal.written


def test_what_a_stranger_writes_does_not_command_the_terminal(fake_node, results, writes):
    writes((LogStream.STDOUT, b"\x1b]0;owned\x07\x1b[2J\xc2\x9b1A\n50 %\r100 %\n"))
    with OnTerminal([*PROGRAM, *JOB], environ(fake_node)) as terminal:
        lines = terminal.wait_for("100 %")
        end(fake_node, results)
        terminal.wait_for("To see the details")
    assert lines[1:3] == ["\ufffd]0;owned\ufffd\ufffd[2J\ufffd1A", "100 %"]
    assert b"owned\x07" not in terminal.written
    assert b"\xc2\x9b" not in terminal.written


def test_in_a_pipe_output_is_as_it_was_written_when_it_is_followed(run, fake_node, results):
    def accept(job) -> None:
        fake_node.logs[job.id] = [LogPiece("e-1", LogStream.STDOUT, 0, b"raw \x1b[2J\xff\n")]
        fake_node.tell(job.id, EventKind.SUBMITTED, "submitted", "Pending")
        fake_node.tell(job.id, EventKind.ENDED, "", "Completed")
        fake_node.complete(job.id, results, RunOutput(stdout=b"never shown"))

    fake_node.on_submit = accept
    result = run(*JOB, "--follow")
    (job_id,) = fake_node.jobs
    assert result.stdout_bytes == f"{job_id}\n".encode() + b"raw \x1b[2J\xff\n"
    assert result.stderr.splitlines()[:2] == ["  Pending", "  Completed"]


def test_output_that_cannot_be_read_is_that_of_the_result(run, fake_node, results):
    def accept(job) -> None:
        fake_node.tell(job.id, EventKind.ENDED, "", "Completed")
        fake_node.complete(job.id, results, RunOutput(stdout=b"from the result\n"))

    fake_node.on_submit = accept
    assert run(*JOB, "--follow").stdout.endswith("\nfrom the result\n")


def test_a_line_without_an_end_is_not_held_back_for_ever(monkeypatch):
    monkeypatch.setattr(following, "MAX_UNFINISHED", 10)
    lines = following._Lines()
    assert lines.take(b"0123456789") == ""
    assert lines.unfinished == "0123456789"
    assert lines.take(b"x") == "0123456789x\n"
    assert lines.unfinished == ""


def test_a_node_that_restarts_is_waited_for_below_what_was_written(fake_node, results, writes):
    writes((LogStream.STDOUT, b"first\n"))
    with OnTerminal([*PROGRAM, *JOB], environ(fake_node)) as terminal:
        terminal.wait_for("Running  ")
        (job_id,) = fake_node.jobs
        fake_node.crash()
        terminal.wait_for("the node does not answer")
        with FakeNode(port=fake_node.port, started=False) as second:
            second.add_job(job_id)
            second.histories[job_id] = list(fake_node.histories[job_id])
            second.logs[job_id] = list(fake_node.logs[job_id])
            second.jobs[job_id] = fake_node.jobs[job_id]
            end(second, results)
            second.start()
            lines = terminal.wait_for("To see the details")
    assert lines[:3] == [job_id, "first", NODE_AWAY]
    assert lines[3].split()[:4] == ["e-1", "on", "7xPqLm4c", "Completed"]
    assert terminal.process.returncode == 0
