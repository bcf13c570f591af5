"""Which nodes the requester knows and can reach, and when it gives up waiting for one.

Pure. `docs/states.md` has the rules in prose.
"""

from __future__ import annotations

from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.requester.ranking import ineligibility_reason
from bacalhau_p2p.requester.record import JobEntry

LOST_AFTER_SILENCE = 20.0
"""Seconds without a heartbeat after which an execution is lost: four heartbeats."""
LOST_AFTER_BREAK = 5.0
"""Seconds after the connection to its node broke and did not come back."""
LOST_WITHOUT_ANOTHER = 60.0
"""Seconds of silence after which it is lost where no other node could take its place: giving it up sooner
gains nothing, and its run may go on when the node is started again."""

LOST_AFTER_SURVIVING = 75.0
"""Seconds without contact after which an execution is lost whose run outlives its node's process: a minute
to start the node again, and the time until it is heard of."""


class Liveness:
    """What is known of other nodes, and since when a connection is broken."""

    def __init__(self, lost_after_surviving: float = LOST_AFTER_SURVIVING) -> None:
        self._lost_after_surviving = lost_after_surviving
        self.nodes: dict[PeerID, NodeInfo] = {}
        self.broken: dict[PeerID, UnixSeconds] = {}

    def update(self, info: NodeInfo) -> tuple[bool, bool]:
        """A node told of itself: whether it is a new compute node, and whether one has more room now."""
        before = self.nodes.get(info.id)
        self.nodes[info.id] = info
        if info.compute is None:
            return False, False
        return before is None, before is None or before.compute is None or _has_more_room(before, info)

    def eligible(self, entry: JobEntry) -> set[PeerID]:
        """Nodes known to be able to run the job that do not already."""
        spec = entry.job.spec
        able = {peer for peer, info in self.nodes.items() if ineligibility_reason(info, spec) is None}
        return able - entry.busy_nodes()

    def missed_at(self, entry: JobEntry, execution: Execution) -> UnixSeconds:
        """When the node of an active execution counts as absent."""
        silent = entry.heard[execution.id] + LOST_AFTER_SILENCE
        broke = self.broken.get(execution.node_id)
        return silent if broke is None else min(silent, broke + LOST_AFTER_BREAK)

    def why_waited_for(self, execution: Execution) -> str:
        """Why an execution whose node is missed is not given up yet, for the user to read."""
        if execution.outlives_node and self._lost_after_surviving:
            return "what it runs goes on without it, and is taken up when it is back"
        return "no other node can take its place"

    def lost_at(self, entry: JobEntry, execution: Execution) -> UnixSeconds:
        """When an active execution is given up."""
        missed = self.missed_at(entry, execution)
        if execution.outlives_node:
            missed = max(missed, entry.heard[execution.id] + self._lost_after_surviving)
        if self.eligible(entry) - self.broken.keys():
            return missed
        return max(missed, entry.heard[execution.id] + LOST_WITHOUT_ANOTHER)


def _has_more_room(before: NodeInfo, after: NodeInfo) -> bool:
    assert before.compute is not None
    assert after.compute is not None
    then, now = before.compute, after.compute
    return not now.available_capacity.fits_in(then.available_capacity) or now.engines != then.engines
