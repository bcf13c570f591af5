"""A `table` is as wide as it needs to be, or as a terminal is."""

from __future__ import annotations

import click

from bacalhau_p2p.cli.table import Column, folded, table_lines
from bacalhau_p2p.cli.terminal import columns_of

COLUMNS = [
    Column("ID", str),
    Column("NAME", str, least=4),
    Column("STATE", str, is_state=True),
    Column("NOTE", str),
    Column("JOB", str, least=4),
    Column("CID", str, least=0),
]
HEADER = [("ID", "NAME", "STATE", "NOTE", "JOB", "CID")]
ROWS = [
    ("1", "a long name", "Completed", "", "docker busybox", "bafybeiq"),
    ("22", "b", "Failed", "", "wasm", ""),
]


def lines(width: int | None, rows: list = ROWS) -> list[str]:
    return [click.unstyle(line) for line in table_lines(COLUMNS, HEADER, rows, width)]


def test_without_a_terminal_nothing_is_cut_or_left_out():
    assert lines(None) == [
        " ID  NAME         STATE      NOTE  JOB             CID",
        " 1   a long name  Completed        docker busybox  bafybeiq",
        " 22  b            Failed           wasm",
    ]


def test_a_terminal_gets_no_empty_columns():
    assert lines(80)[0] == " ID  NAME         STATE      JOB             CID"
    assert lines(80, []) == [" ID  NAME  STATE  NOTE  JOB  CID"]


def test_what_does_not_fit_is_cut_or_left_out_from_the_right():
    assert lines(49)[1] == " 1   a long name  Completed  docker ...  bafybeiq"
    assert lines(36)[1] == " 1   a lo  Completed  dock  bafybeiq"
    assert lines(35)[:2] == [
        " ID  NAME         STATE      JOB",
        " 1   a long name  Completed  docker",
    ]
    assert all(len(line) <= width for width in range(28, 80) for line in lines(width))


def test_what_cannot_be_cut_stays_even_if_it_does_not_fit():
    assert lines(5)[1].split()[0] == "1"
    assert "Completed" in lines(5)[1]


def test_states_have_their_colour_and_headers_none():
    header, first, second = table_lines(COLUMNS, HEADER, ROWS, None)
    assert "\x1b" not in header
    assert click.style("Completed", fg="green") in first
    assert click.style("Failed   ", fg="red") in second


def test_cells_of_strangers_are_harmless_and_keep_the_columns():
    rows = [("1", "\x1b[2J\n\u202eevil", "Failed", "", "\u65e5\u672c", "c"), ROWS[0]]
    shown = lines(None, rows)
    assert shown[1] == " 1   \ufffd[2J\ufffd\ufffdevil   Failed           \u65e5\u672c            c"
    assert columns_of(shown[1]) == columns_of(shown[2]) - len("afybeiq")


def test_the_last_cell_goes_on_below_itself_on_a_terminal():
    text = "announced; round 1: 1 node could run it"
    assert folded("13:04  ", text, None) == [f"13:04  {text}"]
    assert folded("13:04  ", text, 80) == [f"13:04  {text}"]
    assert folded("13:04  ", text, 30) == ["13:04  announced; round 1: 1", "       node could run it"]
    assert folded("13:04  ", text, 20) == [f"13:04  {text}"]
    assert folded("13:04  ", "", 80) == ["13:04"]
