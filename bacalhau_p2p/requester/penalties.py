"""Which nodes have lately wasted this requester's time, so that others are chosen before them.

Pure, as a part of the requester's machine, and in memory only: a requester that starts again knows nothing.

A node is penalised when it was silent after its bid was accepted. It is penalised also when executions of it
fail, one after the other, which other nodes then complete: what fails on every node says nothing of any. For
the same reason the next penalty is longer only if another node has completed what this one did not. What was
accepted before the last failure came to light counts as the same failure. One completed execution clears a
node.
"""

from __future__ import annotations

from collections.abc import Set
from math import inf
from typing import NamedTuple

from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.record import JobEntry, Setback

FIRST_PENALTY = 30.0
LONGEST_PENALTY = 3600.0
"""Seconds for which a node is chosen last the first time, and at most; each time for twice as long."""
LONGEST_FOR_FAILURES = 600.0
"""The same for failures that a node reports: they cost less, and a job and an accomplice that claims to have
completed it can bring them about."""
TOLERATED_FAILURES = 2
"""Failures in a row that have no penalty, unless the node was silent."""
FORGOTTEN_AFTER = 86_400.0
"""Seconds after which a node's failures are forgotten if there are no others."""
MAX_PENALISED = 1_000
"""Nodes that are remembered; those that failed longest ago are forgotten first."""


class _Record(NamedTuple):
    until: UnixSeconds = -inf
    """When its penalty ends."""
    failures: int = 0
    """Those in a row that count, and the tolerated ones in any case once it was silent."""
    last_failed: UnixSeconds = -inf
    """When the last execution ended that counts."""
    completed: UnixSeconds = -inf
    """When it last completed an execution."""
    noted: UnixSeconds = -inf
    """When it last failed or was given a penalty. Records are in this order."""


class Penalties(Undoable):
    """Of one requester."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._records: dict[PeerID, _Record] = UndoableDict()

    def __len__(self) -> int:
        return len(self._records)

    # --- questions --------------------------------------------------------------------------

    def among(self, nodes: Set[PeerID], now: UnixSeconds) -> set[PeerID]:
        """Those of these nodes that are chosen last now."""
        if not self._records:
            return set()
        if len(nodes) > len(self._records):
            return {node for node, each in self._records.items() if now < each.until and node in nodes}
        return {node for node in nodes if node in self._records and now < self._records[node].until}

    def until(self, node: PeerID, now: UnixSeconds) -> UnixSeconds | None:
        """Until when a node is chosen last; None: it is not."""
        until = self._records.get(node, _Record()).until
        return until if now < until else None

    def left(self, now: UnixSeconds) -> dict[PeerID, float]:
        """Every node that is chosen last, with the seconds that are left."""
        return {node: each.until - now for node, each in self._records.items() if now < each.until}

    # --- what became of executions ----------------------------------------------------------

    def gone(self, entry: JobEntry, execution: Execution, now: UnixSeconds, *, silent: bool = False) -> None:
        """An execution that filled a slot failed, was handed back, or was lost because its node was
        `silent`."""
        if execution.slot is None:
            return
        setback, group = Setback(execution.created, now, silent), entry.slots[execution.slot].group
        if entry.placement.groups[group].confirmed:
            self._count(execution.node_id, setback, now)
            return
        entry.note_setback(group, execution.node_id, setback)
        if silent:
            failures = self._counted(execution.node_id, setback)
            self._penalise(execution.node_id, failures, now, LONGEST_PENALTY)

    def completed(self, entry: JobEntry, execution: Execution, now: UnixSeconds) -> None:
        """An execution is completed, and others that were to do the same were not for reasons of their
        nodes."""
        before = self._records.get(execution.node_id)
        if before is not None:
            self._records[execution.node_id] = _Record(completed=now, noted=before.noted)
        if entry.setbacks and execution.slot is not None:
            setbacks = entry.setbacks.pop(entry.slots[execution.slot].group, {})
            for node, setback in setbacks.items():
                if node != execution.node_id:
                    self._count(node, setback, now)

    def _count(self, node: PeerID, setback: Setback, now: UnixSeconds) -> None:
        """Count what was the fault of a node."""
        before = self._records.get(node, _Record())
        counted = self._counted(node, setback)
        if counted == before.failures:
            return
        self._keep(node, before._replace(failures=counted, last_failed=setback.ended, noted=now), now)
        self._penalise(node, counted, now, LONGEST_PENALTY if setback.silent else LONGEST_FOR_FAILURES)

    def _counted(self, node: PeerID, setback: Setback) -> int:
        """The failures of a node in a row, if this one counts."""
        before = self._records.get(node, _Record())
        if setback.ended <= before.completed or setback.began < before.last_failed:
            return before.failures
        return 1 + (max(before.failures, TOLERATED_FAILURES) if setback.silent else before.failures)

    def _penalise(self, node: PeerID, failures: int, now: UnixSeconds, longest: float) -> None:
        """Choose a node last for as long as so many failures demand."""
        if failures <= TOLERATED_FAILURES:
            return
        before = self._records.get(node, _Record())
        doubled = 2.0 ** min(failures - TOLERATED_FAILURES - 1, 16)
        lasts = min(FIRST_PENALTY * doubled, longest)
        if before.until <= now:
            self._ledger.actions.append(ev.NodePenalised(node, lasts))
        self._keep(node, before._replace(until=max(before.until, now + lasts), noted=now), now)

    def _keep(self, node: PeerID, record: _Record, now: UnixSeconds) -> None:
        self._records.pop(node, None)
        self._records[node] = record
        while self._records:
            first, oldest = next(iter(self._records.items()))
            if oldest.noted >= now - FORGOTTEN_AFTER and len(self._records) <= MAX_PENALISED:
                return
            del self._records[first]
