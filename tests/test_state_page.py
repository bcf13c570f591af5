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


def test_the_page_of_states_shows_the_tables_as_they_are():
    page = PAGE.read_text()
    assert page == drawn(page), "run: python -m tests.support.machines.state_page"


def test_a_state_is_set_only_where_the_tables_are():
    """Elsewhere in both components, no call has an argument `state=` of a record."""
    found = set()
    for room in ("requester", "compute"):
        for path in (PACKAGE / room).glob("*.py"):
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and _sets_state(call):
                    found.add(str(path.relative_to(PACKAGE)))
    assert found == MOVERS


def _sets_state(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    records = {"replace", "model_copy", "Job", "Execution", "ComputeExecution"}
    return name in records and any(keyword.arg == "state" for keyword in call.keywords)
