"""What nodes report about their executions becomes an event, or nothing in a state that expects none."""

from __future__ import annotations

from typing import Any

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.execution import Execution, Proposal, PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.usage import Usage
from bacalhau_p2p.requester import execution_transitions as executions
from bacalhau_p2p.requester.reports import Reports
from tests.support.machines.requester_bench import JOB, A, B, S, execution_id
from tests.support.results import result_cid

ID = execution_id(A)
RIGHT, SWAPPED = result_cid("right"), result_cid("swapped")
VERIFIED = Proposal(job_id=JOB, execution_id=ID, node_id=A, result_cid=RIGHT)


def execution(state: S) -> Execution:
    return Execution(id=ID, job_id=JOB, node_id=A, state=state, proposal=VERIFIED, created=0, modified=0)


def event_of(state: S, message, opened=VERIFIED) -> executions.ExecutionEvent | None:
    def open_proposal(sealed: bytes) -> Proposal:
        if isinstance(opened, Exception):
            raise opened
        return opened

    return Reports(open_proposal).event_of(execution(state), message)


def proposed() -> say.ResultProposed:
    return say.ResultProposed(job_id=JOB, execution_id=ID, sealed=b"sealed")


def published(cid: str) -> say.ResultPublished:
    result = PublishedResult(cid=cid, location=SpecConfig(type="ipfs"))
    return say.ResultPublished(job_id=JOB, execution_id=ID, result=result)


def failed(**flags: Any) -> say.ExecutionFailed:
    return say.ExecutionFailed(job_id=JOB, execution_id=ID, reason="no such image", **flags)


def test_a_proposal_of_this_execution_is_opened():
    assert event_of(S.BID_ACCEPTED, proposed()) == executions.ProposalOpened(proposal=VERIFIED)


@pytest.mark.parametrize(
    ("opened", "reason"),
    [
        (RemoteProtocolError("not sealed for us"), "invalid proposal: not sealed for us"),
        (VERIFIED.replace(node_id=B), "invalid proposal: it was made for another execution or node"),
        (VERIFIED.replace(execution_id="e-2"), "invalid proposal: it was made for another execution or node"),
        (VERIFIED.replace(job_id="j-2"), "invalid proposal: it was made for another execution or node"),
    ],
)
def test_a_proposal_that_is_sealed_wrong_or_of_another_execution_is_invalid(opened, reason):
    assert event_of(S.BID_ACCEPTED, proposed(), opened) == executions.ProposalInvalid(message=reason)


def test_a_proposal_is_not_opened_unless_one_is_expected():
    for state in set(S) - {S.BID_ACCEPTED}:
        assert event_of(state, proposed(), AssertionError("opened")) is None


def test_only_the_verified_result_counts_as_published():
    event = event_of(S.RESULT_ACCEPTED, published(RIGHT))
    assert event == executions.Published(published=published(RIGHT).result)
    event = event_of(S.RESULT_ACCEPTED, published(SWAPPED))
    assert event == executions.WrongResultPublished(
        message=f"published {SWAPPED} instead of the verified result"
    )


def test_a_publication_is_expected_of_accepted_results_only():
    for state in set(S) - {S.RESULT_ACCEPTED}:
        assert event_of(state, published(RIGHT)) is None


@pytest.mark.parametrize("state", [S.BID_ACCEPTED, S.RESULT_PROPOSED, S.RESULT_ACCEPTED])
def test_a_node_that_fails_says_whether_it_is_permanent_or_whether_it_stops(state):
    reason = "no such image"
    assert event_of(state, failed()) == executions.FailureReported(message=reason, permanent=False)
    used = Usage(cpu_seconds=1.5)
    assert event_of(state, failed(usage=used)) == executions.FailureReported(
        message=reason, failed_usage=used
    )
    kept = RIGHT
    told = executions.FailureReported(message=reason, failed_cid=kept if state is S.BID_ACCEPTED else None)
    assert event_of(state, failed(kept_cid=kept)) == told
    assert event_of(state, failed(permanent=True)) == executions.FailureReported(
        message=reason, permanent=True
    )
    assert event_of(state, failed(drained=True)) == executions.NodeDrained(message=reason)


def test_a_failure_before_the_acceptance_withdraws_the_bid():
    assert event_of(S.BID_RECEIVED, failed()) == executions.BidWithdrawn(message="no such image")


def test_a_failure_after_the_end_is_not_expected():
    for state in S:
        if state.terminal:
            assert event_of(state, failed()) is None
