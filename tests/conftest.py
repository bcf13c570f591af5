"""Fixtures for more than one room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_node import FakeNode


@pytest.fixture
def fake_node() -> Iterator[FakeNode]:
    """A node's HTTP API by Python's own server: keeps jobs and content, runs nothing."""
    with FakeNode() as node:
        yield node
