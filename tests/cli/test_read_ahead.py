"""Pages that are made while others are used: `read_ahead`."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from bacalhau_p2p.cli.read_ahead import read_ahead
from bacalhau_p2p.errors import NodeUnavailable


def test_items_come_in_their_order_and_all_of_them():
    assert list(read_ahead(range(100))) == list(range(100))
    assert list(read_ahead([])) == []


def test_the_next_item_is_made_while_one_is_used_and_no_more():
    made: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    ahead = read_ahead(items())
    assert next(ahead) == 0
    assert second.wait(30)
    assert made == [0, 1]
    assert list(ahead) == [1, 2, 3, 4]


def test_an_error_comes_behind_the_items_before_it():
    def items() -> Iterator[int]:
        yield 1
        raise NodeUnavailable("gone")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(NodeUnavailable, match="gone"):
        next(ahead)
