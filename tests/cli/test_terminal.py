"""What a `terminal` can show."""

from __future__ import annotations

import io

import pytest

from bacalhau_p2p.cli import terminal
from bacalhau_p2p.cli.terminal import Block, coloured, columns_of, cut, padded


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("", 0), ("\u65e5\u672c", 4), ("e\u0301", 1), ("\u00e9", 1)]
)
def test_text_takes_columns(text, columns):
    assert columns_of(text) == columns
    assert columns_of(padded(text, 7)) == 7


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdefghij", 10, "abcdefghij"),
        ("abcdefghijk", 10, "abcdefg..."),
        ("abcdefghijk", 4, "abcd"),
        ("abc", 0, ""),
        ("\u65e5\u672c\u65e5\u672c\u65e5\u672c", 9, "\u65e5\u672c\u65e5..."),
    ],
)
def test_text_is_cut_to_columns(text, width, shown):
    assert cut(text, width) == shown


def test_lines_are_drawn_over_those_before_and_only_when_they_differ(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    block = Block()
    block.draw(["one", "two"])
    block.draw(["one", "two"])
    assert stream.getvalue() == "one\ntwo\n"
    block.draw(["three"])
    block.clear()
    block.clear()
    assert stream.getvalue() == "one\ntwo\n\r\x1b[2A\x1b[Jthree\n\r\x1b[1A\x1b[J"


@pytest.mark.parametrize(
    ("environ", "terminal_", "none"),
    [
        ({}, True, False),
        ({"TERM": "dumb"}, False, True),
        ({"NO_COLOR": "1"}, True, True),
        ({"NO_COLOR": ""}, True, False),
    ],
)
def test_a_dumb_terminal_and_no_color_are_heeded(monkeypatch, environ, terminal_, none):
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert (terminal.is_terminal(Terminal()), terminal.wants_no_colour()) == (terminal_, none)
    assert terminal.is_terminal(io.StringIO()) is False


def test_states_have_colours_and_other_words_none():
    assert coloured("Failed ", "Failed") == "\x1b[31mFailed \x1b[0m"
    assert coloured("Whatever", "Whatever") == "Whatever"


def test_what_has_no_terminal_has_the_usual_size():
    assert terminal.size_of(io.StringIO()) == (80, 24)
