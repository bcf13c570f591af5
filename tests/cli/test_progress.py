"""The line on stderr that shows the progress of a transfer."""

from __future__ import annotations

import io

from bacalhau_p2p.cli import progress
from bacalhau_p2p.cli.progress import ProgressLine


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
