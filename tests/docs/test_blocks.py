"""Every block of code in the documentation is run by a test, or says why not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.support.doc_blocks import Block, blocks, comparable

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

REASONS = {
    "a second machine": 4,
    "installs software": 6,
    "needs root": 4,
    "needs the internet": 2,
    "takes long": 2,
    "goes on until Ctrl-C": 3,
    "cells of a notebook": 1,
}
"""Why a block is not run, and how many there may be of each. To run a block is better than to raise one."""


def test_blocks_that_are_not_run_say_why_and_are_few():
    marks = Counter(block.mark for page in PAGES for block in blocks(page) if block.mark)
    reasons = {mark.removeprefix("not run: "): count for mark, count in marks.items() if "not run" in mark}
    assert {reason: count for reason, count in reasons.items() if count > REASONS.get(reason, 0)} == {}
    assert set(marks) - {f"not run: {reason}" for reason in reasons} <= {"run with Docker"}


def test_a_console_is_commands_and_what_they_print():
    block = Block(page="", line=1, language="console", text="$ a \\\n  b\nprinted\n\n$ c\n")
    assert list(block.commands()) == [("a \\\n  b", ["printed"]), ("c", [])]


def test_lines_that_differ_only_from_run_to_run_are_equal():
    first = " 20:06:01  17b2d7dd  Wasm   Completed  ipfs://bafybei..."
    other = " 07:16:59  aabbccdd  Wasm  Completed  ipfs://bafybeigh2qa"
    assert comparable(first) == comparable(other) != comparable(other.replace("Completed", "Failed"))
