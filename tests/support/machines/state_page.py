"""Draws the tables of transitions into docs/states.md: `python -m tests.support.machines.state_page`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bacalhau_p2p.components.transitions import Row
from bacalhau_p2p.compute import transitions as compute_transitions
from bacalhau_p2p.requester import execution_transitions, job_transitions

PAGE = Path(__file__).parents[3] / "docs" / "states.md"

Table = Mapping[tuple[Any, type], Row[Any, Any]]

TABLES: dict[str, Table] = {
    "a job": job_transitions.TRANSITIONS,
    "an execution at the requester": execution_transitions.TRANSITIONS,
    "an execution at its compute node": compute_transitions.TRANSITIONS,
}
"""By the name that stands in the page's markers."""


def drawn(page: str) -> str:
    """The page with the present tables between its markers."""
    for name, table in TABLES.items():
        begin, end = f"<!-- transitions of {name} -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        assert len(pattern.findall(page)) == 1, f"the page must have one pair of markers: {begin}"
        section = f"{begin}\n\n{_diagram(table)}\n\n{_rows(table)}\n\n{_glossary(table)}\n\n{end}"
        page = pattern.sub(lambda match, section=section: section, page)
    return page


def _diagram(table: Table) -> str:
    events: dict[tuple[str, str], list[str]] = {}
    for (state, event), row in table.items():
        events.setdefault((state or "[*]", row.to), []).append(event.__name__)
    arrows = [f"    {state} --> {to}: {'<br>'.join(names)}" for (state, to), names in events.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", *arrows, "```"])


def _rows(table: Table) -> str:
    lines = ["| state | event | next state | actions |", "|---|---|---|---|"]
    for (state, event), row in table.items():
        actions = ", ".join(action.__name__.replace("_", " ") for action in row.actions)
        lines.append(f"| {state or ''} | {event.__name__} | {row.to} | {actions} |")
    return "\n".join(lines)


def _glossary(table: Table) -> str:
    """Each event with the first paragraph of its docstring."""
    lines = ["| event | what happened |", "|---|---|"]
    for event in dict.fromkeys(event for _, event in table):
        paragraph, _, _ = (event.__doc__ or "").partition("\n\n")
        lines.append(f"| {event.__name__} | {' '.join(paragraph.split())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
