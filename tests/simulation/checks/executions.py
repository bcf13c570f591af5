"""Checks on executions: what is done for them, what room they hold, and what their requesters are owed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.compute.machine import ComputeMachine
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.state import ComputeState as C
from bacalhau_p2p.model.state import ExecutionState as S
from tests.simulation.checks.violation import require
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.plans.plan import JobPlan

HOLDS_ROOM = frozenset({C.BID, C.PREPARING, C.RUNNING})
_OWED = {
    (C.PROPOSED, S.BID_ACCEPTED): "result_proposed",
    (C.COMPLETED, S.RESULT_ACCEPTED): "result_published",
    (C.FAILED, S.BID_ACCEPTED): "execution_failed",
    (C.FAILED, S.RESULT_ACCEPTED): "execution_failed",
}
"""The message that must be in flight when the node and its requester are in these states."""


class ExecutionChecks:
    def __init__(
        self,
        nodes: Mapping[PeerID, SimulatedNode],
        jobs: Mapping[str, JobPlan],
        disturbed: Collection[JobID],
    ) -> None:
        """Of `disturbed` jobs less is expected."""
        self._nodes = nodes
        self._disturbed = disturbed
        self._jobs = jobs
        self._accepted_bids: set[ExecutionID] = set()
        self._accepted_results: set[ExecutionID] = set()
        self._lost_power: set[PeerID] = set()
        self.runs: Counter[JobID] = Counter()
        """How often a job's runs were begun."""

    # --- what is done -----------------------------------------------------------------------------

    def committed(self, commit: Commit) -> None:
        """Note what requesters accept."""
        for message in commit.outbox:
            match message.envelope.message:
                case say.BidAccepted(execution_id=execution_id):
                    self._accepted_bids.add(execution_id)
                case say.ResultAccepted(execution_id=execution_id):
                    self._accepted_results.add(execution_id)

    def preparing(self, execution: ComputeExecution) -> None:
        accepted = execution.id in self._accepted_bids
        require(accepted, "acceptance", f"{execution.id} is prepared, and its bid was never accepted")

    def running(self, peer: PeerID, execution: ComputeExecution) -> None:
        self.runs[execution.job_id] += 1
        first = self._nodes[peer].engine.started[execution.id] == 0
        excused = not self._jobs[execution.spec.name].survives or peer in self._lost_power
        excused |= execution.job_id in self._disturbed
        require(first or excused, "once", f"{execution.id} runs a second time, though its run was there")

    def publishing(self, execution: ComputeExecution) -> None:
        accepted = execution.id in self._accepted_results
        require(accepted, "acceptance", f"{execution.id} is published, and was never accepted")

    # --- what is reserved, and what is owed -------------------------------------------------------

    def check_machine(self, machine: ComputeMachine) -> None:
        capacity = machine.capacity
        require(capacity.reserved.fits_in(capacity.limit), "capacity", "more is reserved than there is")
        # A bid that has changed is one whose reservation has ended.
        owners = {
            e.id
            for e in machine.executions.values()
            if e.state in HOLDS_ROOM and not (e.state is C.BID and e.modified > e.created)
        }
        require(
            capacity.holders == owners,
            "reservation",
            f"{sorted(capacity.holders - owners)} hold room, {sorted(owners - capacity.holders)} do not",
        )

    def check_owed(self, node: SimulatedNode, record: ComputeExecution) -> None:
        """What a node has come to is in flight to the requester, or has arrived there."""
        requester = self._nodes.get(record.requester_id)
        if requester is None or record.job_id in self._disturbed:
            return
        view = requester.disk.requester_store.known((record.job_id, record.id))
        if view is None or (kind := _OWED.get((record.state, view.state))) is None:
            return
        in_flight = any(
            message.envelope.message.kind == kind and message.envelope.message.execution_id == record.id  # type: ignore[attr-defined]
            for message in node.disk.compute_store.outbox.values()
        )
        what = f"{record.id} is {record.state} on {node.peer}, its requester has {view.state}"
        require(in_flight, "conservation", f"{what}, and no {kind} is under way")

    def stopped(self, node: SimulatedNode, *, power: bool) -> None:
        if power:
            self._lost_power.add(node.peer)
        for record in node.disk.compute_store.records.values():
            self.check_owed(node, record)
