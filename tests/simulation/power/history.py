"""One node's commits, and which of them hold what it has promised."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tests.simulation.checks.violation import Violation
from tests.simulation.power.promises import Promise
from tests.simulation.power.trace import Committed, State


@dataclass(frozen=True, slots=True)
class Promised:
    """An entry of the trace: from here on others rely on this."""

    node: str
    promise: Promise
    when: float


class NodeHistory:
    """States are numbered: 0 is the empty database, and each commit adds one."""

    def __init__(self, node: str, database: str, entries: Sequence[object]) -> None:
        """Raises Violation when something was promised that no commit holds."""
        self.node = node
        self.states: list[State] = [()]
        self.floors: dict[Promise, int] = {}
        """The first state that holds the promise."""
        self._commit_places: list[int] = []
        self._promise_places: list[int] = []
        self._promise_floors: list[int] = []
        for place, entry in enumerate(entries):
            if isinstance(entry, Committed) and entry.path == database:
                self.states.append(entry.state)
                self._commit_places.append(place)
            elif isinstance(entry, Promised) and entry.node == node and entry.promise not in self.floors:
                self._add(entry.promise, place)
        self._numbers: dict[State, list[int]] = {}
        for number, state in enumerate(self.states):
            self._numbers.setdefault(state, []).append(number)

    def _add(self, promise: Promise, place: int) -> None:
        floor = next((n for n, state in enumerate(self.states) if promise.kept_in(state)), None)
        if floor is None:
            raise Violation("committed before it is promised", f"{self.node} has not committed {promise}")
        self.floors[promise] = floor
        self._promise_places.append(place)
        self._promise_floors.append(max(floor, *self._promise_floors[-1:], 0))

    def commits_before(self, place: int) -> int:
        """Transactions that had returned at this place of the trace."""
        return bisect_right(self._commit_places, place)

    def relied_on(self, place: int) -> int:
        """The state behind which this node must not fall from this place on."""
        promises = bisect_right(self._promise_places, place)
        return self._promise_floors[promises - 1] if promises else 0

    def number_of(self, state: State, at_most: int) -> int | None:
        """The latest state up to `at_most` that is this one; None if the node was never in it."""
        return next((n for n in reversed(self._numbers.get(state, ())) if n <= at_most), None)
