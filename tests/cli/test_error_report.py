"""How errors of commands are printed, and the exit status."""

from __future__ import annotations

import pytest

from bacalhau_p2p.cli.error_report import report_error
from bacalhau_p2p.errors import Fault, InvalidJob, JobFailed


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (JobFailed("it\nfailed"), "Error: it failed\n"),
        (JobFailed("it failed", last_lines="one\n\x1b[2J"), "Error: it failed\n  one\n  \ufffd[2J\n"),
        (InvalidJob([Fault("Count", "must be at least 1")]), "Error: Count: must be at least 1\n"),
        (
            InvalidJob([Fault("Count", "must be at least 1"), Fault("", "missing")]),
            "Error: invalid job:\n  Count: must be at least 1\n  missing\n",
        ),
        (FileNotFoundError(2, "No such file or directory", "x"), "Error: x: No such file or directory\n"),
    ],
)
def test_an_error_is_printed_without_a_traceback(capsys, error, printed):
    assert report_error(error) == 1
    assert capsys.readouterr().err == printed


def test_the_first_error_of_a_group_is_printed(capsys):
    inner = ExceptionGroup("inner", [JobFailed("first"), JobFailed("second")])
    assert report_error(BaseExceptionGroup("all", [KeyboardInterrupt(), inner])) == 1
    assert capsys.readouterr().err == "Error: first\n"


def test_an_interruption_has_status_130_and_prints_nothing(capsys):
    assert report_error(BaseExceptionGroup("all", [KeyboardInterrupt()])) == 130
    assert capsys.readouterr().err == ""


def test_a_bug_is_left_to_a_traceback(capsys):
    assert report_error(ExceptionGroup("all", [JobFailed("x"), ZeroDivisionError()])) is None
    assert capsys.readouterr().err == ""
