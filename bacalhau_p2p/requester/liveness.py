"""Which nodes the requester knows, whether they are in contact, and when their executions are lost.

Pure, as a part of the requester's machine. `docs/states.md` has the rules in prose.
"""

from __future__ import annotations

from bacalhau_p2p.components.undo import UndoableDict, UndoableSet
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.requester.ranking import ineligibility_reason
from bacalhau_p2p.requester.record import JobEntry

LOST_AFTER_SILENCE = 20.0
"""Seconds without a heartbeat after which an execution is lost: four heartbeats."""
LOST_AFTER_DISCONNECT = 5.0
"""Seconds after the connection to its node broke, if it has not come back."""
LOST_WITHOUT_REPLACEMENT = 60.0
"""Seconds without contact after which an execution is lost if no other node could run it. Losing it sooner
gains nothing, and its run may continue when the node is restarted."""

MAX_DISCONNECTED = 10_000
"""Peers of which it is known that the connection to them broke, the latest ones."""
FORGET_DISCONNECTED = 3600.0
"""Seconds after which that is forgotten: whoever is away for so long is known to be silent."""

LOST_AFTER_SURVIVING = 75.0
"""Seconds without contact after which an execution that outlives its node is lost: a minute to restart the
node, and the time until its first message arrives."""


class Liveness:
    """The nodes that published their info, which peers are connected, and when connections broke.

    This node itself, `own`, counts as connected.
    """

    def __init__(self, own: PeerID, lost_after_surviving: float = LOST_AFTER_SURVIVING) -> None:
        self._lost_after_surviving = lost_after_surviving
        self.nodes: dict[PeerID, NodeInfo] = UndoableDict()
        self.connected: set[PeerID] = UndoableSet([own])
        self.disconnected_at: dict[PeerID, UnixSeconds] = UndoableDict()

    def update(self, info: NodeInfo) -> tuple[bool, bool]:
        """Take in a node's info. Returns whether it is a new compute node, and whether it is that or offers
        other things than before."""
        before = self.nodes.get(info.id)
        self.nodes[info.id] = info
        if info.compute is None:
            return False, False
        return before is None, before is None or _offer(before) != _offer(info)

    def note_connected(self, peer: PeerID) -> bool:
        """There is a connection to a peer. Returns whether one broke before."""
        self.connected.add(peer)
        return self.disconnected_at.pop(peer, None) is not None

    def note_disconnected(self, peer: PeerID, now: UnixSeconds) -> None:
        """The connection to a peer broke."""
        self.connected.discard(peer)
        self.disconnected_at.pop(peer, None)
        self.disconnected_at[peer] = now
        while self.disconnected_at:
            first = next(iter(self.disconnected_at))
            old = self.disconnected_at[first] < now - FORGET_DISCONNECTED
            if not old and len(self.disconnected_at) <= MAX_DISCONNECTED:
                return
            del self.disconnected_at[first]

    def eligible(self, entry: JobEntry) -> set[PeerID]:
        """Known nodes that could run the job, without those that have a part in it."""
        return self.matching(entry.job.spec) - entry.placement.busy_nodes()

    def matching(self, spec: JobSpec) -> set[PeerID]:
        """Known nodes that could run such a job when idle."""
        return {peer for peer, info in self.nodes.items() if ineligibility_reason(info, spec) is None}

    def _has_replacement(self, entry: JobEntry, execution: Execution) -> bool:
        """Whether a node is connected that could run the job, and has no part in it or, if it is divided, in
        what this execution does."""
        spec, may_take_over = entry.job.spec, entry.placement.may_take_over
        return any(
            may_take_over(peer, execution)
            and peer not in self.disconnected_at
            and ineligibility_reason(info, spec) is None
            for peer, info in self.nodes.items()
        )

    def unreachable_at(self, entry: JobEntry, execution: Execution) -> UnixSeconds:
        """When the node of an active execution counts as unreachable."""
        silent = entry.last_contact[execution.id] + LOST_AFTER_SILENCE
        disconnected = self.disconnected_at.get(execution.node_id)
        return silent if disconnected is None else min(silent, disconnected + LOST_AFTER_DISCONNECT)

    def lost_at(self, entry: JobEntry, execution: Execution) -> UnixSeconds:
        """When an active execution is lost. That of an ops job cannot be replaced: it is lost when its node
        is silent for long, so that the job can end, and not because a connection broke."""
        lost, contact = self.unreachable_at(entry, execution), entry.last_contact[execution.id]
        if entry.ops:
            surviving = self._lost_after_surviving if execution.outlives_node else 0.0
            return contact + max(surviving, LOST_AFTER_SILENCE)
        if execution.outlives_node:
            lost = max(lost, contact + self._lost_after_surviving)
        if self._has_replacement(entry, execution):
            return lost
        return max(lost, contact + LOST_WITHOUT_REPLACEMENT)

    def reason_to_wait(self, execution: Execution, *, ops: bool) -> str:
        """Why an execution on an unreachable node is not lost yet, for the user to read."""
        if execution.outlives_node and self._lost_after_surviving:
            return "what it runs continues without it"
        if ops:
            return "it may come back"
        return "no other node can run the job"


def _offer(info: NodeInfo) -> object:
    """What decides which jobs the node could run, however busy it is."""
    compute = info.compute
    return compute and (
        compute.engines,
        compute.storage_sources,
        compute.publishers,
        compute.networks,
        compute.max_capacity,
        info.labels,
    )
