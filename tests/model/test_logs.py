"""Pieces of output, and their JSON (`logs`, `logs_json`)."""

from __future__ import annotations

import json

import pytest

from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.logs import KnownOutput, LogPiece, LogStream, after
from bacalhau_p2p.model.logs_json import piece_from_json, piece_to_json

RUN = ExecutionID("e-1")


@pytest.mark.parametrize("data", [b"", b"text\n", "grüße".encode(), b"\xff\0", "é".encode()[:1]])
@pytest.mark.parametrize("stream", LogStream)
def test_a_piece_is_read_as_it_was_written(data, stream):
    piece = LogPiece(RUN, stream, 7, data)
    assert piece_from_json(json.loads(json.dumps(piece_to_json(piece)))) == piece


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"ExecutionID": "e", "Stream": "other", "Offset": 0, "Text": ""},
        {"ExecutionID": "e", "Stream": "stdout", "Offset": 0, "Data": "%"},
    ],
)
def test_what_is_no_piece_is_an_error(value):
    with pytest.raises((KeyError, ValueError)):
        piece_from_json(value)


def test_each_stream_has_an_offset_of_its_own():
    known = after((10, 20), LogPiece(RUN, LogStream.STDERR, 20, b"abc"))
    assert known == (10, 23)
    assert after(known, LogPiece(RUN, LogStream.STDOUT, 15, b"abc")) == (18, 23)


def test_output_that_is_read_again_is_new_only_behind_what_is_known():
    known = KnownOutput()
    assert not known
    first = LogPiece(RUN, LogStream.STDOUT, 0, b"abc")
    assert known.fresh(first) == first
    assert known
    assert known.fresh(first) is None
    assert known.fresh(LogPiece(RUN, LogStream.STDOUT, 0, b"abcde")) == LogPiece(
        RUN, LogStream.STDOUT, 3, b"de"
    )
    other = LogPiece(ExecutionID("e-2"), LogStream.STDOUT, 0, b"x")
    assert known.fresh(other) == other
