"""Values as text for people."""

from __future__ import annotations

from datetime import datetime

from bacalhau_p2p.cli.formatting import day_and_minute, exact_time, shortened, table, time_of_day

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


def test_columns_of_a_table_are_as_wide_as_their_widest_cell():
    assert table([("A", "LONG", "C"), ("1234", "b", "")]) == [" A     LONG  C", " 1234  b"]


def test_long_text_is_shortened():
    assert shortened("12345678", 8) == "12345678"
    assert shortened("123456789", 8) == "12345..."
