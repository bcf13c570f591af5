"""docs/states.md shows the tables as they are, and nothing else changes a state."""

from __future__ import annotations

import ast
from pathlib import Path

import bacalhau_p2p
from tests.support.machines.state_page import PAGE, drawn

PACKAGE = Path(bacalhau_p2p.__file__).parent
MOVERS = {
    "requester/job_transitions.py",
    "requester/execution_transitions.py",
    "compute/transitions.py",
}
STORED = {"requester/rows.py"}
"""Reads and writes records as rows, which have a column for the state."""


def test_the_page_of_states_shows_the_tables_as_they_are():
    page = PAGE.read_text()
    assert page == drawn(page), "run: python -m tests.support.machines.state_page"


def test_a_state_is_set_only_where_the_tables_are():
    """Elsewhere in both components, nothing makes or changes a record with a state of its own."""
    found = {
        str(path.relative_to(PACKAGE))
        for room in ("requester", "compute")
        for path in (PACKAGE / room).glob("*.py")
        if any(_sets_state(node) for node in ast.walk(ast.parse(path.read_text())))
    }
    assert found - STORED == MOVERS


def _sets_state(node: ast.AST) -> bool:
    match node:
        case ast.Dict():
            return any(isinstance(key, ast.Constant) and key.value == "state" for key in node.keys)
        case ast.Call():
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            records = {"replace", "model_copy", "Job", "Execution", "ComputeExecution"}
            return name in records and any(keyword.arg == "state" for keyword in node.keywords)
    return False
