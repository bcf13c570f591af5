"""A peer that knows every id and says anything about them, under its own name: authors are authenticated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.messages import Message
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.execution import Execution, Job, PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.state import ComputeState, ExecutionState
from tests.simulation.checks.messages import STRANGER
from tests.simulation.nodes.network import Network
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.nodes.store import SimulatedStore
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import Forgery
from tests.support.results import plaintext_of, result_cid, results_folder

_Record = TypeVar("_Record", ComputeExecution, Execution)


class Stranger:
    """Picks an execution that belongs to others and says something about it."""

    def __init__(self, timeline: Timeline, network: Network, nodes: Mapping[PeerID, SimulatedNode]) -> None:
        self._timeline = timeline
        self._network = network
        self._nodes = nodes
        self._said = 0

    def speak(self, forgery: Forgery) -> None:
        if forgery.kind in _TO_COMPUTE:
            picked = self._pick(forgery, lambda node: node.disk.compute_store, ComputeExecution)
            if picked is not None:
                receiver, compute_record = picked
                self._send(receiver, _TO_COMPUTE[forgery.kind](compute_record))
            return
        found = self._pick(forgery, lambda node: node.disk.requester_store, Execution)
        if found is None:
            return
        receiver, record = found
        if forgery.kind == "bid":
            self._bid(receiver, record, forgery)
        else:
            self._send(receiver, _TO_REQUESTER[forgery.kind](record))

    def _pick(
        self,
        forgery: Forgery,
        store: Callable[[SimulatedNode], SimulatedStore],
        kind: type[_Record],
    ) -> tuple[PeerID, _Record] | None:
        found = [
            (node.peer, record)
            for node in self._nodes.values()
            for record in store(node).records.values()
            if isinstance(record, kind) and not record.state.terminal
        ]
        return found[forgery.pick % len(found)] if found else None

    def _bid(self, receiver: PeerID, record: Execution, forgery: Forgery) -> None:
        """With an id that is in use, for any job: bidders choose the ids of their executions."""
        records = self._nodes[receiver].disk.requester_store.records.values()
        jobs = [each for each in records if isinstance(each, Job)]
        job = jobs[forgery.pick // 7 % len(jobs)]
        self._send(receiver, say.Bid(job_id=job.id, execution_id=record.id, reserved_for=30.0))

    def _send(self, receiver: PeerID, message: Message) -> None:
        self._said += 1
        self._timeline.count_fault(f"forged {message.kind}")
        message_id = MessageID(f"stranger.{self._said}".encode().ljust(16, b"."))
        self._network.send(STRANGER, receiver, Envelope(id=message_id, message=message, to=receiver))


def _reconcile(record: ComputeExecution) -> Message:
    view = say.ExecutionView(
        job_id=record.job_id,
        execution_id=record.id,
        state=ExecutionState.RESULT_ACCEPTED
        if record.state == ComputeState.PROPOSED
        else ExecutionState.BID_ACCEPTED,
    )
    return say.Reconcile(executions=(view,))


def _proposed(record: Execution) -> Message:
    plaintext = plaintext_of(results_folder("forged"), record.job_id, record.id, record.node_id)
    return say.ResultProposed(job_id=record.job_id, execution_id=record.id, sealed=plaintext)


def _published(record: Execution) -> Message:
    cid = record.proposal.result_cid if record.proposal else result_cid("forged")
    result = PublishedResult(cid=cid, location=SpecConfig(type="ipfs"))
    return say.ResultPublished(job_id=record.job_id, execution_id=record.id, result=result)


def _failed(record: Execution) -> Message:
    return say.ExecutionFailed(job_id=record.job_id, execution_id=record.id, reason="forged", permanent=True)


def _heartbeat(record: Execution) -> Message:
    line = say.ExecutionProgress(execution_id=record.id, state=ComputeState.RUNNING)
    return say.Heartbeat(executions=(line,))


_TO_COMPUTE = {
    "bid_accepted": lambda r: say.BidAccepted(job_id=r.job_id, execution_id=r.id),
    "bid_rejected": lambda r: say.BidRejected(job_id=r.job_id, execution_id=r.id),
    "result_accepted": lambda r: say.ResultAccepted(job_id=r.job_id, execution_id=r.id),
    "result_rejected": lambda r: say.ResultRejected(job_id=r.job_id, execution_id=r.id),
    "cancel_execution": lambda r: say.CancelExecution(job_id=r.job_id, execution_id=r.id),
    "reconcile": _reconcile,
}
_TO_REQUESTER = {
    "result_proposed": _proposed,
    "result_published": _published,
    "execution_failed": _failed,
    "heartbeat": _heartbeat,
}
