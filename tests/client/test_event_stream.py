"""Server-sent events are read line by line."""

from __future__ import annotations

import pytest

from bacalhau_p2p.client.event_stream import MAX_EVENT, EventStreamReader
from bacalhau_p2p.errors import ApiError


def read(*lines: str) -> list[bytes]:
    reader = EventStreamReader(lambda data: data)
    return [event for line in lines for event in reader.feed(line.encode())]


def test_an_event_ends_with_an_empty_line():
    assert read("id: 1", "data: {}", "", ":", "", 'data:{"a": 1}', "") == [b"{}", b'{"a": 1}']
    assert read("data: {}") == []


def test_several_lines_of_data_are_one_event():
    assert read("data: {", "data: }", "") == [b"{\n}"]


def test_a_line_of_an_event_without_data_is_ignored():
    assert read("event: x", "retry: 5", "") == []


def test_an_event_that_is_too_large_is_an_error():
    with pytest.raises(ApiError, match="the node sent an event of more than 1,048,576 bytes"):
        read("data: " + MAX_EVENT * "x", "data: x")
    with pytest.raises(ApiError, match="an event of more than"):
        read(*["data:"] * (MAX_EVENT + 1))
