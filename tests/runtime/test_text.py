from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacalhau_p2p.runtime.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("größe 東京 🙂", "größe 東京 🙂"),
        ("\x1b[2J\x1b]0;title\x07", "\ufffd[2J\ufffd]0;title\ufffd"),
        ("\x9b31m\x7f", "\ufffd31m\ufffd"),
        ("a\u202egnp.exe", "a\ufffdgnp.exe"),
        ("one\r\ntwo", "one\ufffd\ufffdtwo"),
        ("\ud800", "\ufffd"),
    ],
)
def test_what_a_terminal_would_obey_is_replaced(text, shown):
    assert printable(text) == shown


def test_lines_and_tabs_can_be_kept():
    assert printable("a\tb\nc\r", keep_lines=True) == "a\tb\nc\ufffd"


@given(st.text(st.characters()))
def test_no_control_or_format_character_is_left(text):
    shown = printable(text)
    assert len(shown) == len(text)
    assert not {"Cc", "Cs", "Zl", "Zp"} & {unicodedata.category(character) for character in shown}
    shown.encode()
