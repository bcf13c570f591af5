"""The line on stderr that shows how far a transfer or a start is."""

from __future__ import annotations

import io

from bacalhau_p2p.cli import progress
from bacalhau_p2p.cli.progress import ProgressLine, StatusLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_bytes_so_far_and_in_the_end_nothing(monkeypatch):
    clock = iter([1.0, 1.01, 2.0, 3.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with ProgressLine() as line:
        line.update(1, 10_000)
        line.update(2, 10_000)  # too soon to be shown
        line.update(20_000, 10_000)
        line.update(5_000, None)
    first, second, third, cleared = terminal.getvalue().split("\r")[1:5]
    assert first == "  1 B of 10.0 kB (0 %)"
    assert second.rstrip() == "  10.0 kB of 10.0 kB (100 %)"
    assert third.strip() == "5.0 kB"
    assert len(third) == len(second)
    assert cleared.strip() == ""


def test_nothing_is_shown_in_a_pipe_or_when_quiet(monkeypatch):
    for stream, quiet in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr("sys.stderr", stream)
        with ProgressLine(quiet=quiet) as line:
            line.update(1, 2)
        assert stream.getvalue() == ""


def test_a_pipe_gets_a_plain_line_every_five_seconds_and_none_of_what_is_quick(monkeypatch):
    clock = iter([100.0, 101.0, 105.0, 106.0, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    pipe = io.StringIO()
    monkeypatch.setattr("sys.stderr", pipe)
    with StatusLine() as line:
        for number in range(4):
            line.show(f"started {number}")
    assert pipe.getvalue() == "started 1\nstarted 3\n"
