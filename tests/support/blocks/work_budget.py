"""A measure of work that depends on neither the machine nor its load."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most_calls(limit: int) -> Iterator[None]:
    """Fails as soon as the block has made more than `limit` Python function calls."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        if event == "call":
            calls += 1
            if calls > limit:
                raise AssertionError(f"more than {limit} function calls")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)
