"""What nodes report about their executions, as events of these executions."""

from __future__ import annotations

from collections.abc import Callable

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.execution import Execution, Proposal
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester import execution_transitions as executions

Report = say.ResultProposed | say.ResultPublished | say.ExecutionFailed


class Reports:
    """Turns a message about an execution into an event.

    `open_proposal` opens a sealed proposal and raises RemoteProtocolError. It is a pure function, and it is
    called here and not before the machine, because only the machine knows whether a proposal is wanted:
    nobody makes this node decrypt anything by repeating messages or inventing executions.
    """

    def __init__(self, open_proposal: Callable[[bytes], Proposal]) -> None:
        self._open_proposal = open_proposal

    def event_of(
        self, execution: Execution, message: Report, *, ops: bool = False
    ) -> executions.ExecutionEvent | None:
        """None if the execution is in a state in which no such message is expected. `ops`: it is one of an
        ops job, which the same node begins again if it has forgotten it."""
        match message:
            case say.ResultProposed():
                if not executions.expects(execution.state, executions.ProposalOpened):
                    return None
                return self._proposed(execution, message)
            case say.ResultPublished():
                event = _published(execution, message)
            case say.ExecutionFailed():
                event = _failed(execution, message, ops)
        return event if executions.expects(execution.state, type(event)) else None

    def _proposed(self, execution: Execution, message: say.ResultProposed) -> executions.ExecutionEvent:
        try:
            proposal = self._open_proposal(message.sealed)
            claims = (proposal.job_id, proposal.execution_id, proposal.node_id)
            if claims != (execution.job_id, execution.id, execution.node_id):
                raise RemoteProtocolError("it was made for another execution or node")
        except RemoteProtocolError as error:
            return executions.ProposalInvalid(message=f"invalid proposal: {error}")
        return executions.ProposalOpened(proposal=proposal)


def _published(execution: Execution, message: say.ResultPublished) -> executions.ExecutionEvent:
    verified = execution.proposal.result_cid if execution.proposal is not None else None
    if message.result.cid == verified:
        return executions.Published(published=message.result)
    reason = f"published {message.result.cid} instead of the verified result"
    return executions.WrongResultPublished(message=reason)


def _failed(execution: Execution, message: say.ExecutionFailed, ops: bool) -> executions.ExecutionEvent:
    if execution.state == ExecutionState.BID_RECEIVED:
        return executions.BidWithdrawn(message=message.reason)
    if message.drained or (message.unknown and ops):
        return executions.NodeDrained(message=message.reason)
    return executions.FailureReported(
        message=message.reason,
        permanent=message.permanent,
        failed_usage=message.usage,
        failed_cid=message.kept_cid if execution.state == ExecutionState.BID_ACCEPTED else None,
    )
