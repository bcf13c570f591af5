"""The table of an execution's transitions at the requester."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.transitions import InvalidTransition
from bacalhau_p2p.requester import execution_transitions as executions
from tests.support.machines.requester_bench import JOB, A, B, S, execution_id, job, proposed, sent


def move(bench, event):
    """Apply an event to A's execution, past the machine that would not let it through."""
    entry = bench.machine.jobs[JOB]
    executions.move(bench.machine._ledger, entry, entry.executions[execution_id(A)], event, bench.now)


@pytest.fixture
def accepted(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(A)
    bench.wait(1)
    return bench


def test_an_event_without_a_row_is_our_bug_and_changes_nothing(accepted):
    with pytest.raises(InvalidTransition, match=r"e-alice-1 is BidAccepted.*VerdictAccepted"):
        move(accepted, executions.VerdictAccepted(exit_code=0))
    assert accepted.states() == {A: S.BID_ACCEPTED}


def test_a_terminal_state_has_no_row():
    assert [key for key in executions.TRANSITIONS if key[0] is not None and key[0].terminal] == []


def test_an_invalid_proposal_fails_the_execution_and_the_node_gets_the_reason(accepted):
    garbage = say.ResultProposed(job_id=JOB, execution_id=execution_id(A), sealed=b"garbage")
    actions = accepted.receive(A, garbage)
    assert sent(actions) == [(A, "cancel_execution")]
    (cancel,) = [action.message for action in actions if sent([action])]
    assert cancel.reason.startswith("invalid proposal: ")
    assert accepted.states() == {A: S.FAILED}
    assert [slot.execution for slot in accepted.machine.jobs[JOB].slots] == [None]


def test_a_proposal_is_opened_only_while_one_is_expected(accepted):
    accepted.receive(A, proposed(A))
    assert accepted.states() == {A: S.RESULT_PROPOSED}
    garbage = say.ResultProposed(job_id=JOB, execution_id=execution_id(A), sealed=b"garbage")
    assert accepted.receive(A, garbage) == []
    assert accepted.machine.ignored == {"ResultProposed in ResultProposed": 1}


def test_an_execution_that_a_node_hands_back_is_no_attempt(accepted):
    drained = say.ExecutionFailed(
        job_id=JOB, execution_id=execution_id(A), reason="the node was stopped", drained=True
    )
    accepted.receive(A, drained)
    assert accepted.states() == {A: S.LOST}
    assert [(slot.execution, slot.attempts) for slot in accepted.machine.jobs[JOB].slots] == [(None, 0)]


def test_a_withdrawn_bid_is_neither_an_attempt_nor_a_failure(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(A)
    bench.fail(A, permanent=True)
    entry = bench.machine.jobs[JOB]
    assert bench.states() == {A: S.FAILED}
    assert (entry.slots[0].attempts, entry.failures, entry.permanent_failures) == (0, {}, set())
