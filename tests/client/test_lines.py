"""Lines end with a newline, and with nothing else."""

from __future__ import annotations

import pytest

from bacalhau_p2p.client.lines import MAX_LINE, LineReader
from bacalhau_p2p.errors import ApiError


def lines(*pieces: bytes) -> list[bytes]:
    reader = LineReader()
    return [line for piece in pieces for line in reader.feed(piece)]


def test_lines_are_whole_however_they_arrive():
    assert lines(b"one\ntw", b"o", b"\n\nthree\r\nfo") == [b"one", b"two", b"", b"three"]


def test_other_separators_are_part_of_a_line():
    text = "a\u2028b\x85c\x0bd\x1ce\rf".encode()
    assert lines(text + b"\n") == [text]


def test_a_line_without_end_is_an_error():
    with pytest.raises(ApiError, match="the node sent a line of more than 4,194,304 bytes"):
        lines(MAX_LINE * b"x", b"x")
