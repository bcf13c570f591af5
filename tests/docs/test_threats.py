"""`docs/threats.md` names tests that exist, and limits with their values."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from bacalhau_p2p.transports import budgets, dial_budget

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "threats.md").read_text().partition("## Budgets")[2]
LIMITS = re.findall(r"`([A-Z][A-Z_]+)` (\d+(?:\.\d+)?)", TABLE)


def constants() -> dict[str, set[float]]:
    """The numbers that module-level names of the package have, by name."""
    found: dict[str, set[float]] = {}
    for path in (ROOT / "bacalhau_p2p").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
            for target in targets:
                if isinstance(target, ast.Name) and (value := number(node.value)) is not None:
                    found.setdefault(target.id, set()).add(value)
    return found


def number(node: ast.expr | None) -> float | None:
    """The value of an expression of numbers alone, such as `16 * 1024`."""
    if node is None or any(not isinstance(each, NUMERIC) for each in ast.walk(node)):
        return None
    value = eval(compile(ast.Expression(node), "limit", "eval"))
    return value if isinstance(value, int | float) else None


NUMERIC = (ast.BinOp, ast.UnaryOp, ast.Constant, ast.operator, ast.unaryop)


def test_every_test_that_the_table_names_exists():
    sources = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    defined = {name for text in sources.values() for name in re.findall(r"def (test_\w+)", text)}
    files = {path.name for path in sources}
    named = set(re.findall(r"`(test_\w+(?:\.py)?)`", TABLE))
    assert len(named) > 50
    assert named - defined - files == set()


def test_every_limit_in_the_table_has_its_value():
    known = constants()
    assert len(LIMITS) > 200
    assert [(name, value) for name, value in LIMITS if float(value) not in known.get(name, set())] == []


def test_every_budget_is_in_the_table():
    names = {name for module in (budgets, dial_budget) for name in vars(module) if name.isupper()}
    assert "MAX_PAYERS" in names
    assert {name for name in names if not name.startswith("_") and f"`{name}`" not in TABLE} == set()
