"""The line on stderr that shows how far a transfer or a start is."""

from __future__ import annotations

import io

import pytest

from bacalhau_p2p.cli import progress
from bacalhau_p2p.cli.progress import ProgressLine, StatusLine, progress_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_bytes_so_far_and_in_the_end_nothing(monkeypatch):
    clock = iter([1.0, 1.0, 1.01, 1.01, 2.0, 2.0, 3.0, 3.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with ProgressLine() as line:
        line.update(1, 10_000)
        line.update(2, 10_000)  # too soon to be shown
        line.update(20_000, 10_000)
        line.update(5_000, None)
    first, second, third, cleared = terminal.getvalue().split("\r")[1:5]
    assert first == f"  [{'-' * 24}]  1 B of 10.0 kB"
    assert second.rstrip() == f"  [{'#' * 24}]  10.0 kB of 10.0 kB  20.0 kB/s"
    assert third.strip().startswith("5.0 kB  ")
    assert len(third) == len(second)
    assert cleared.strip() == ""


@pytest.mark.parametrize(
    ("done", "total", "rate", "text"),
    [
        (0, 6_000_000, 0.0, "  [------------------------]  0 B of 6.0 MB"),
        (3_000_000, 6_000_000, 1.5e6, "  [############------------]  3.0 MB of 6.0 MB  1.5 MB/s  2.0 s left"),
        (6_000_100, 6_000_000, 1.5e6, "  [########################]  6.0 MB of 6.0 MB  1.5 MB/s"),
        (5_000, None, 0.0, "  5.0 kB"),
        (5_000, 0, 1000.0, "  5.0 kB  1.0 kB/s"),
    ],
)
def test_a_bar_has_total_rate_and_time_left(done, total, rate, text):
    assert progress_text(done, total, rate) == text


def test_what_is_sent_is_counted_and_not_changed(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with ProgressLine() as line:
        assert list(line.counted([b"abc", b"de"], 5)) == [b"abc", b"de"]
    assert "3 B of 5 B" in terminal.getvalue()


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
