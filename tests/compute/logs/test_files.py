"""Streams are read from files that grow, are not there yet, are moved, or were cut (`logs.files`)."""

from __future__ import annotations

from contextlib import closing

import pytest

from bacalhau_p2p.compute.logs.files import MAX_TAIL_BYTES, StreamFiles
from bacalhau_p2p.model.logs import LogStream

OUT, ERR = LogStream.STDOUT, LogStream.STDERR


@pytest.fixture
def files(tmp_path):
    with closing(StreamFiles(tmp_path)) as files:
        yield files


def test_a_file_is_read_from_an_offset_as_soon_as_it_is_there(files, tmp_path):
    assert files.read(OUT, 0, 9) == (0, b"")
    (tmp_path / "stdout").write_bytes(b"one two")
    assert files.read(OUT, 4, 2) == (4, b"tw")
    with (tmp_path / "stdout").open("ab") as more:
        more.write(b" three")
    assert files.read(OUT, 7, 99) == (7, b" three")
    assert files.read(ERR, 0, 99) == (0, b"")


def test_what_is_open_is_read_to_its_end_after_it_was_removed(files, tmp_path):
    (tmp_path / "stdout").write_bytes(b"one")
    files.read(OUT, 0, 1)
    (tmp_path / "stdout").unlink()
    assert files.read(OUT, 1, 99) == (1, b"ne")


def test_of_a_stream_that_was_cut_only_the_end_is_read_and_its_offsets_stay(files, tmp_path):
    (tmp_path / "stdout").write_bytes(b"end\nof it\n")
    (tmp_path / "stdout.skipped").write_text("1000")
    assert files.read(OUT, 0, 99) == (1000, b"end\nof it\n")
    assert files.read(OUT, 1004, 99) == (1004, b"of it\n")
    assert files.tail(1) == (1004, 0)


@pytest.mark.parametrize(
    ("text", "lines", "begin"),
    [
        (b"", 3, 0),
        (b"one", 1, 0),
        (b"one\n", 1, 0),
        (b"one\ntwo", 1, 4),
        (b"one\ntwo\n", 1, 4),
        (b"one\ntwo\n", 2, 0),
        (b"one\ntwo\n", 9, 0),
        (b"one\ntwo\n", 0, 8),
        (b"one\n\n\n", 2, 4),
        (b"a\n" * 100_000, 50_000, 100_000),
        (b"x" * 200_000 + b"\nend", 1, 200_001),
        (b"x" * (2 * MAX_TAIL_BYTES), 1, MAX_TAIL_BYTES),
    ],
    ids=range(12),
)
def test_the_last_lines_are_found(files, tmp_path, text, lines, begin):
    (tmp_path / "stderr").write_bytes(text)
    assert files.tail(lines) == (0, begin)


def test_the_last_lines_of_stderr_are_shown_or_else_those_of_stdout(files, tmp_path):
    assert files.last_lines(3, 99) == ""
    (tmp_path / "stdout").write_bytes(b"a\nb\nc\nd\n")
    (tmp_path / "stderr").write_bytes(b"\n")
    assert files.last_lines(3, 99) == "b\nc\nd"
    (tmp_path / "stderr").write_bytes(b"fatal: \xff\n")
    assert files.last_lines(3, 99) == "fatal: \ufffd"
    assert files.last_lines(3, 2) == " \ufffd"


def test_a_link_is_not_followed(files, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "stdout").symlink_to(tmp_path / "secret")
    assert files.read(OUT, 0, 99) == (0, b"")
