"""What requesters tell a compute node to do with their executions, and what it answers.

Pure, as a part of the compute machine. Only the requester of an execution can move it. If a requester accepts
an execution that has ended or that is unknown here, it gets the reason.
"""

from __future__ import annotations

from itertools import islice

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute import transitions
from bacalhau_p2p.compute.ledger import Ledger
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.state import ComputeState, ExecutionState, UnknownState

S = ComputeState

MAX_UNKNOWN_ANSWERS = 10
"""Unknown executions of one message that are answered. A requester asks about one at a time."""
UNKNOWN = "unknown on the node"
"""Why an execution fails that its node does not know, or no longer."""

Command = say.BidAccepted | say.BidRejected | say.ResultAccepted | say.ResultRejected | say.CancelExecution


class Commands:
    """Moves executions as their requesters say."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def forgotten(self, message: say.Message) -> list[ExecutionID]:
        """Executions that a message asks about and that are not in memory. Of them the driver hands over, as
        `Recalled`, those that the store has and that are the author's."""
        match message:
            case say.Reconcile(executions=views):
                named = [view.execution_id for view in views]
            case say.BidAccepted(execution_id=one) | say.ResultAccepted(execution_id=one):
                named = [one]
            case _:
                return []
        missing = (each for each in named if each not in self._ledger.executions)
        return list(islice(missing, MAX_UNKNOWN_ANSWERS))

    def take(self, author: PeerID, message: Command, now: UnixSeconds) -> None:
        """Take in a message from a requester about one execution."""
        execution = self._ledger.executions.get(message.execution_id)
        if execution is not None and execution.requester_id != author:
            self._ledger.ignore(message, "from another requester")
            return
        if execution is not None and transitions.expects(execution.state, message):
            if isinstance(message, say.BidAccepted):
                self._accepted(execution, message, now)
            else:
                transitions.move(self._ledger, execution, message, now)
            return
        if execution is None:
            self._ledger.ignore_unknown(message, "execution")
        else:
            self._ledger.ignore(message, f"in {execution.state}")
        if not isinstance(message, say.BidAccepted | say.ResultAccepted):
            return
        if execution is None:
            self._send_unknown(author, message.job_id, message.execution_id, now)
        elif execution.state is S.COMPLETED:  # a repeat: its requester is about to hear of the result
            transitions.send_result_published(self._ledger, execution, message, now)
        elif execution.state.terminal:
            self._send_ended(author, execution, now)

    def reconcile(self, author: PeerID, message: say.Reconcile, now: UnixSeconds) -> None:
        """Take in how a requester sees its executions on this node."""
        answers = MAX_UNKNOWN_ANSWERS
        for view in message.executions:
            if self._knows(author, view.execution_id):
                self._reconcile(author, view, now)
                continue
            self._ledger.ignore_unknown(view, "execution")
            if answers:
                answers -= 1
                self._send_unknown(author, view.job_id, view.execution_id, now)

    def _reconcile(self, author: PeerID, view: say.ExecutionView, now: UnixSeconds) -> None:
        """Move an execution on to the state that its requester sees, or repeat what the requester missed."""
        execution = self._ledger.executions[view.execution_id]
        match (view.state, execution.state):
            case (UnknownState(), _):
                self._ledger.ignore(view, "with a state of a later version")
            case (ExecutionState.BID_ACCEPTED, S.BID):
                accepted = say.BidAccepted(
                    job_id=view.job_id, execution_id=execution.id, partition=view.partition
                )
                self._accepted(execution, accepted, now)
            case (ExecutionState.RESULT_ACCEPTED, S.PROPOSED):
                verified = say.ResultAccepted(job_id=view.job_id, execution_id=execution.id)
                transitions.move(self._ledger, execution, verified, now)
            case (ExecutionState.BID_ACCEPTED, S.PROPOSED):
                transitions.send_result_proposed(self._ledger, execution, view, now)
            case (_, S.COMPLETED):  # in an earlier state: it was overtaken by the acceptance of the result
                transitions.send_result_published(self._ledger, execution, view, now)
            case (_, state) if state.terminal:
                self._send_ended(author, execution, now)

    def _accepted(self, execution: ComputeExecution, message: say.BidAccepted, now: UnixSeconds) -> None:
        """Begin, if there is room: that of a bid which is accepted late was released."""
        if self._has_room_for(execution, now):
            transitions.move(self._ledger, execution, message, now)
        else:
            transitions.move(self._ledger, execution, transitions.RoomLost(), now)

    def _has_room_for(self, execution: ComputeExecution, now: UnixSeconds) -> bool:
        requester, amount, capacity = execution.requester_id, execution.reserves, self._ledger.capacity
        if capacity.holds(execution.id):
            return True
        refusal = self._ledger.shares.refusal(requester, amount, now)
        return refusal is None and capacity.reserve(execution.id, requester, amount)

    def _knows(self, author: PeerID, execution_id: ExecutionID) -> bool:
        execution = self._ledger.executions.get(execution_id)
        return execution is not None and execution.requester_id == author

    def _send_unknown(self, to: PeerID, job_id: JobID, execution_id: ExecutionID, now: UnixSeconds) -> None:
        """Tell a peer that it has no such execution here. Nothing is kept for it: anybody may ask."""
        failed = say.ExecutionFailed(job_id=job_id, execution_id=execution_id, reason=UNKNOWN, unknown=True)
        give_up_at = now + transitions.REPEAT_UNKNOWN_FOR
        self._ledger.actions.append(ev.Send(to, failed, give_up_at, durable=False))

    def _send_ended(self, to: PeerID, execution: ComputeExecution, now: UnixSeconds) -> None:
        """Tell a requester that an execution has ended. A bid that was accepted too late is handed back:
        nothing is wrong with the job."""
        failed = say.ExecutionFailed(
            job_id=execution.job_id,
            execution_id=execution.id,
            reason=_ended(execution)[: say.MAX_REASON],
            drained=execution.state is S.EXPIRED and execution.result_cid is None,
        )
        self._ledger.actions.append(ev.Send(to, failed, now + transitions.REPEAT_FAILURE_FOR))


def _ended(execution: ComputeExecution) -> str:
    return f"already {execution.state} on the node: {execution.message}"
