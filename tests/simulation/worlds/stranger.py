"""A peer that knows everything and says what it likes, under its own name only: authors are authenticated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.messages import Message
from bacalhau_p2p.bprotocol.proposals import encode_proposal
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.execution import Execution, Job, Proposal, PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.state import ComputeState, ExecutionState
from tests.simulation.plans.plan import Forgery

if TYPE_CHECKING:
    from tests.simulation.worlds.world import World

STRANGER = PeerID("stranger")


class Stranger:
    """Picks an execution that is somebody else's and says something about it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._said = 0

    def speak(self, forgery: Forgery) -> None:
        if forgery.kind in _TO_COMPUTE:
            self._speak_to_compute(forgery)
        else:
            self._speak_to_requester(forgery)

    def _speak_to_compute(self, forgery: Forgery) -> None:
        found = [
            (node.peer, record)
            for node in self._world.nodes.values()
            for record in node.compute_disk.records.values()
            if isinstance(record, ComputeExecution) and not record.state.terminal
        ]
        if found:
            receiver, record = found[forgery.pick % len(found)]
            self._say(receiver, _TO_COMPUTE[forgery.kind](record))

    def _speak_to_requester(self, forgery: Forgery) -> None:
        found = [
            (node.peer, record)
            for node in self._world.nodes.values()
            for record in node.requester_disk.records.values()
            if isinstance(record, Execution) and not record.state.terminal
        ]
        if not found:
            return
        receiver, record = found[forgery.pick % len(found)]
        if forgery.kind != "bid":
            self._say(receiver, _TO_REQUESTER[forgery.kind](record))
            return
        # An id that is in use, for any job: ids are minted by bidders, and anybody may mint a known one.
        records = self._world.nodes[receiver].requester_disk.records.values()
        jobs = [record for record in records if isinstance(record, Job)]
        job = jobs[forgery.pick // 7 % len(jobs)]
        bid = say.Bid(job_id=job.id, execution_id=record.id, reserved_for=30.0)
        self._say(receiver, bid)

    def _say(self, receiver: PeerID, message: Message) -> None:
        self._said += 1
        self._world.struck(f"forged {message.kind}")
        message_id = MessageID(f"stranger.{self._said}".encode().ljust(16, b"."))
        self._world.transmit(STRANGER, receiver, Envelope(id=message_id, message=message, to=receiver))


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
    proposal = Proposal(
        job_id=record.job_id, execution_id=record.id, node_id=record.node_id, result_cid="bafy-forged"
    )
    return say.ResultProposed(job_id=record.job_id, execution_id=record.id, sealed=encode_proposal(proposal))


def _published(record: Execution) -> Message:
    cid = record.proposal.result_cid if record.proposal else "bafy-forged"
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
