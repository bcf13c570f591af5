"""Which rows of both tables, which states and which faults the worlds of a run have seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bacalhau_p2p.compute import machine as compute
from bacalhau_p2p.model.state import ComputeState, ExecutionState, JobState
from bacalhau_p2p.requester import machine as requester


class _Counted(dict[Any, Any]):
    """A table that counts which of its rows are taken."""

    def __init__(self, table: dict[Any, Any], name: str, taken: Counter[str]) -> None:
        super().__init__(table)
        self._name = name
        self._taken = taken

    def get(self, key: Any, default: Any = None) -> Any:
        row = super().get(key, default)
        if row is not None:
            self._taken[row_name(self._name, key)] += 1
        return row


def row_name(machine: str, key: tuple[Any, type]) -> str:
    state, event = key
    return f"{machine} {state} + {event.__name__}"


def every_row() -> list[str]:
    """The names of all rows of both tables."""
    tables = (("requester", requester.TRANSITIONS), ("compute", compute.TRANSITIONS))
    return [row_name(name, key) for name, table in tables for key in table]


def every_state() -> list[str]:
    """The names of all states that are ever kept, as the watch counts them."""
    # Bids are not stored: one that a crash forgets is made again.
    kept = [state for state in ExecutionState if state is not ExecutionState.BID_RECEIVED]
    return [
        *(f"job {state}" for state in JobState),
        *(f"execution {state}" for state in kept),
        *(f"compute {state}" for state in ComputeState if state is not ComputeState.BID),
    ]


@contextmanager
def counted_rows() -> Iterator[Counter[str]]:
    """Counts the rows that are taken during the block."""
    taken: Counter[str] = Counter()
    before = (requester.TRANSITIONS, compute.TRANSITIONS)
    requester.TRANSITIONS = _Counted(requester.TRANSITIONS, "requester", taken)
    compute.TRANSITIONS = _Counted(compute.TRANSITIONS, "compute", taken)
    try:
        yield taken
    finally:
        requester.TRANSITIONS, compute.TRANSITIONS = before
