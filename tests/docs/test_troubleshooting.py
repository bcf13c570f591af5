"""Every message that docs/troubleshooting.md explains is one that the program has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)


@cache
def texts() -> list[str]:
    """Every text of the program, with NUL for what differs."""
    trees = (ast.parse(path.read_text()) for path in (ROOT / "bacalhau_p2p").rglob("*.py"))
    return [text for tree in trees for text in parts_of(tree)]


def parts_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_each_row_has_a_message_a_cause_and_a_remedy():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(MESSAGES) > 40
    assert [row for row in rows if len(row.split(" | ")) != 3] == []


@pytest.mark.parametrize("message", MESSAGES)
def test_the_program_has_the_message(message: str):
    known = [part.strip() for part in message.split("...") if part.strip()]
    pattern = re.compile(".*".join(map(re.escape, known)), re.DOTALL)
    assert max(map(len, known)) > 5
    found = [text for text in texts() if pattern.search(text)]
    if not found:  # a message of several texts, such as that of an image
        found = [part for part in known if any(part in text for text in texts())]
        assert found == known, f"the program does not say {set(known) - set(found)}"
