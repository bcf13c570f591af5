"""The disk of a simulated node: the stores on it, and the faults that are planned for it."""

from __future__ import annotations

from collections.abc import Iterable

from bacalhau_p2p.model.base import PeerID
from tests.simulation.nodes.store import SimulatedStore
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import (
    CrashPoint,
    Fault,
    FullDisk,
    HandlerFault,
    Point,
    RecordFault,
    SlowDisk,
)


class Disk:
    """Outlives the processes of its node."""

    def __init__(self, peer: PeerID, faults: Iterable[Fault], timeline: Timeline) -> None:
        """`faults` are those of this node; others than of disks are ignored."""
        self.peer = peer
        self.requester_store = SimulatedStore()
        self.compute_store = SimulatedStore()
        self.commits = 0
        """Commits that any process of the node has begun."""
        self._timeline = timeline
        faults = list(faults)
        self._crashes = {(each.commit, each.point): each for each in faults if isinstance(each, CrashPoint)}
        self._slow = [each for each in faults if isinstance(each, SlowDisk)]
        self._raising = {each.number for each in faults if isinstance(each, HandlerFault)}
        self._refusing = {each.number for each in faults if isinstance(each, RecordFault)}
        self._handled = self._records = 0
        self._full = [each for each in faults if isinstance(each, FullDisk)]

    @property
    def stores(self) -> tuple[SimulatedStore, SimulatedStore]:
        return self.requester_store, self.compute_store

    def take_crash(self, point: Point) -> CrashPoint | None:
        """The crash that is planned for this point of the latest commit. It strikes once."""
        return None if self._timeline.healed else self._crashes.pop((self.commits, point), None)

    def handler_raises(self) -> bool:
        """Whether the handler of the next event is planned to raise."""
        self._handled += 1
        return self._handled in self._raising and not self._timeline.healed

    def refuses_record(self) -> bool:
        """Whether the store is planned to refuse the next record."""
        self._records += 1
        return self._records in self._refusing and not self._timeline.healed

    def is_full(self) -> bool:
        since = self._timeline.since_start
        return any(fault.start <= since < fault.end for fault in self._full)

    def commit_seconds(self) -> float:
        """How long a commit takes now."""
        since = self._timeline.since_start
        return max((fault.seconds for fault in self._slow if fault.start <= since < fault.end), default=0.0)
