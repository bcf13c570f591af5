"""Results that a node keeps until their requester has judged them and they are published.

Pure, as a part of the compute machine. A requester may take a day for its verdict. When there are too many
results, the requester with most of them loses its oldest, so that nobody keeps the others out.
"""

from __future__ import annotations

from dataclasses import dataclass

from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.validation import size_of

MAX_RESULTS = 5_000
MAX_RESULTS_OF_ONE = 2_000
"""Results of all requesters, and of one."""
MAX_RECORD_BYTES = 16 * 1024 * 1024
MAX_RECORD_BYTES_OF_ONE = 6 * 1024 * 1024
"""Bytes of their specs as JSON and of their sealed proposals."""
DISK_SHARE = 0.5
DISK_SHARE_OF_ONE = 0.25
"""Bytes of the results themselves, as shares of the disk for jobs."""


@dataclass(slots=True)
class _Sum(Undoable):
    results: int = 0
    records: int = 0
    disk: int = 0

    def add(self, sign: int, other: _Sum) -> None:
        self.results += sign * other.results
        self.records += sign * other.records
        self.disk += sign * other.disk

    def share_of(self, most: _Sum) -> float:
        """The part of a limit that is used most; above 1.0 it is exceeded."""
        disk = self.disk / most.disk if most.disk else 0.0
        return max(self.results / most.results, self.records / most.records, disk)


class KeptResults:
    """The results of one node, in the order in which they came."""

    def __init__(self, disk: int) -> None:
        """`disk`: bytes of disk for jobs."""
        self._disk = disk
        self._by_requester: dict[PeerID, dict[ExecutionID, _Sum]] = UndoableDict()
        self._of_one: dict[PeerID, _Sum] = UndoableDict()
        self._all = _Sum()

    def keep(self, execution: ComputeExecution) -> None:
        """The result of this execution is kept from now on."""
        requester = execution.requester_id
        if requester not in self._by_requester:
            self._by_requester[requester] = UndoableDict()
            self._of_one[requester] = _Sum()
        results = self._by_requester[requester]
        if execution.id in results:
            return
        records = size_of(execution.spec) + len(execution.sealed)
        size = results[execution.id] = _Sum(1, records, execution.result_bytes)
        self._of_one[requester].add(1, size)
        self._all.add(1, size)

    def drop(self, execution: ComputeExecution) -> None:
        """The result of this execution is kept no more, if it was."""
        results = self._by_requester.get(execution.requester_id, {})
        if (size := results.pop(execution.id, None)) is None:
            return
        self._of_one[execution.requester_id].add(-1, size)
        self._all.add(-1, size)
        if not results:
            del self._by_requester[execution.requester_id], self._of_one[execution.requester_id]

    def displaced_by(self, newest: ComputeExecution) -> ExecutionID | None:
        """A result that has to go so that `newest`, which is kept already, may stay; None if none has to."""
        mine = newest.requester_id
        of_one, of_all = self._most_of_one(), self._most_of_all()
        if self._of_one[mine].share_of(of_one) > 1.0 and (oldest := self._oldest(mine, newest)) is not None:
            return oldest
        if self._all.share_of(of_all) <= 1.0:
            return None
        shares = {peer: kept.share_of(of_all) for peer, kept in self._of_one.items()}
        for peer in sorted(shares, key=lambda peer: -shares[peer]):
            if (oldest := self._oldest(peer, newest)) is not None:
                return oldest
        return None

    def _oldest(self, requester: PeerID, newest: ComputeExecution) -> ExecutionID | None:
        oldest = next(iter(self._by_requester[requester]))
        return oldest if oldest != newest.id else None

    def _most_of_one(self) -> _Sum:
        return _Sum(MAX_RESULTS_OF_ONE, MAX_RECORD_BYTES_OF_ONE, int(self._disk * DISK_SHARE_OF_ONE))

    def _most_of_all(self) -> _Sum:
        return _Sum(MAX_RESULTS, MAX_RECORD_BYTES, int(self._disk * DISK_SHARE))
