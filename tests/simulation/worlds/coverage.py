"""Which rows of the tables, which states and which faults the worlds of a run have seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from bacalhau_p2p.compute import transitions as compute_transitions
from bacalhau_p2p.model.state import ComputeState, ExecutionState, JobState
from bacalhau_p2p.requester import execution_transitions, job_transitions

_TABLES: dict[str, Any] = {
    "job": job_transitions,
    "requester": execution_transitions,
    "compute": compute_transitions,
}


class _CountedTable(dict[Any, Any]):
    """A table that counts which of its rows are taken."""

    def __init__(self, table: dict[Any, Any], name: str, taken: Counter[str]) -> None:
        super().__init__(table)
        self._names = {key: row_name(name, key) for key in table}
        self._taken = taken

    def __getitem__(self, key: Any) -> Any:
        self._taken[self._names[key]] += 1
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        row = super().get(key, default)
        if row is not None:
            self._taken[self._names[key]] += 1
        return row


def row_name(machine: str, key: tuple[Any, type]) -> str:
    state, event = key
    return f"{machine} {state or 'new'} + {event.__name__}"


def every_row() -> list[str]:
    """The names of all rows of all tables."""
    return [row_name(name, key) for name, module in _TABLES.items() for key in module.TRANSITIONS]


def every_state() -> list[str]:
    """The names of all states that are committed, as the watch counts them."""
    # Bids are not stored: one that a crash forgets is made again.
    committed = [state for state in ExecutionState if state is not ExecutionState.BID_RECEIVED]
    return [
        *(f"job {state}" for state in JobState),
        *(f"execution {state}" for state in committed),
        *(f"compute {state}" for state in ComputeState if state is not ComputeState.BID),
    ]


@contextmanager
def counted_rows() -> Iterator[Counter[str]]:
    """Counts the rows that are taken during the block."""
    taken: Counter[str] = Counter()
    with ExitStack() as stack:
        for name, module in _TABLES.items():
            counted = _CountedTable(module.TRANSITIONS, name, taken)
            stack.enter_context(patch.object(module, "TRANSITIONS", counted))
        yield taken
