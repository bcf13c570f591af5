"""Values as text for people."""

from __future__ import annotations

from datetime import datetime

from bacalhau_p2p.cli.formatting import day_and_minute, exact_time, time_of_day

SOME_TIME = datetime(2026, 11, 22, 18, 59, 25, 123_000)
STAMP = int(SOME_TIME.timestamp() * 1000) * 1_000_000


def test_a_time_of_another_day_has_its_date():
    assert time_of_day(STAMP, datetime(2026, 11, 22, 20)) == "18:59:25"
    assert time_of_day(STAMP, datetime(2026, 11, 23, 1)) == "26-11-22-18:59:25"
    assert time_of_day(None, SOME_TIME) == ""


def test_times_are_local():
    assert day_and_minute(STAMP) == "26-11-22 18:59"
    assert day_and_minute(None) == ""
    assert str(exact_time(STAMP)).startswith("2026-11-22 18:59:25.123")
    assert exact_time("never") == "never"
