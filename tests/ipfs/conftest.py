from __future__ import annotations

import pytest

from tests.support.blocks.dag_makers import MemoryBlocks


@pytest.fixture
def blocks():
    return MemoryBlocks()


@pytest.fixture
def out(tmp_path):
    """An empty folder to write into; nothing but the target may be left in it."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
