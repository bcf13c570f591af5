"""The table of a job's transitions, and the rows that simulated worlds never take."""

from __future__ import annotations

import pytest

from bacalhau_p2p.components.transitions import InvalidTransition
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester import job_transitions as jobs
from bacalhau_p2p.requester.groups import MAX_ATTEMPTS
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.pace import FIRST_WINDOW
from tests.support.machines.requester_bench import JOB, A, B, RequesterBench, S, execution_id, job, sent


def ledger_with(state: JobState) -> Ledger:
    ledger = Ledger()
    ledger.add(Job(id=JOB, spec=job(), state=state, requester_id=A, created=0, modified=0))
    return ledger


def test_an_event_without_a_row_is_our_bug_and_changes_nothing():
    ledger = ledger_with(JobState.COMPLETED)
    entry = ledger.jobs[JOB]
    with pytest.raises(InvalidTransition, match=r"j-1 is Completed.*SlotFilled"):
        jobs.move(ledger, entry, jobs.SlotFilled(), now=1)
    assert (entry.job.state, entry.job.revision, ledger.take_actions()) == (JobState.COMPLETED, 1, [])


def test_a_terminal_state_has_no_row():
    assert [key for key in jobs.TRANSITIONS if key[0] is not None and key[0].terminal] == []


def test_an_event_that_changes_nothing_stores_nothing():
    ledger = ledger_with(JobState.RUNNING)
    jobs.move(ledger, ledger.jobs[JOB], jobs.NodeHeard(), now=1)
    assert ledger.take_actions() == []
    jobs.move(ledger, ledger.jobs[JOB], jobs.NodeAwaited(message="waiting"), now=2)
    stored, told = ledger.take_actions()
    assert (told.event.number, told.event.message) == (1, "waiting")
    assert (stored.record.message, stored.record.modified, stored.record.revision) == ("waiting", 2, 2)


@pytest.mark.parametrize(
    ("timeouts", "reason"),
    [
        ({"QueueTimeout": 0.1}, "no node for 1 of 1 executions within the queue timeout of 0.1 s"),
        ({"TotalTimeout": 0.1}, "total timeout of 0.1 s exceeded"),
    ],
)
def test_a_time_out_shorter_than_the_first_round_ends_a_pending_job(bench, timeouts, reason):
    bench.submit(job(Tasks=[{"Engine": {"Type": "noop"}, "Timeouts": timeouts}]))
    assert bench.job.state is JobState.PENDING
    bench.wait(0.15)
    assert bench.job.state is JobState.FAILED
    assert bench.job.message.startswith(reason)


@pytest.fixture
def queued_while_judged(bench):
    """The verifier still judges the only result, and its node is lost meanwhile."""
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(A)
    bench.wait(1)
    bench.propose(A)
    bench.handle(ev.NodeDisconnected(A))
    bench.wait(20)
    assert (bench.states(), bench.job.state) == ({A: S.LOST}, JobState.QUEUED)
    return bench


def test_a_verdict_without_an_accepted_result_ends_a_queued_job(queued_while_judged):
    queued_while_judged.judge(accepted=[], rejected=[A], reason="differs")
    job = queued_while_judged.job
    assert (job.state, job.message) == (JobState.FAILED, "differs")


def test_a_verifier_that_fails_ends_a_queued_job(queued_while_judged):
    actions = queued_while_judged.handle(ev.VerifierFailed(JOB, "out of memory"))
    assert queued_while_judged.job.state is JobState.FAILED
    assert "out of memory" in queued_while_judged.job.message
    assert closes(actions) == ["job_closed"]


def resumed(*, attempts: int, permanent: bool = False) -> RequesterBench:
    """A requester that resumes a queued job, all of whose attempts failed."""
    bench = RequesterBench()
    record = Job(id=JOB, spec=job(), state=JobState.QUEUED, requester_id=A, created=0, modified=0)
    failed = [
        Execution(
            id=execution_id(A, number),
            job_id=JOB,
            node_id=A,
            state=ExecutionState.FAILED,
            message="no such image",
            created=0,
            modified=number,
            slot=0,
            permanent=permanent,
        )
        for number in range(attempts)
    ]
    bench.handle(ev.Resumed(record, failed))
    return bench


def test_a_queued_job_without_attempts_left_ends_when_it_is_resumed():
    """An earlier version may have allowed more attempts."""
    assert resumed(attempts=MAX_ATTEMPTS - 1).job.state is JobState.QUEUED
    ended = resumed(attempts=MAX_ATTEMPTS).job
    assert (ended.state, ended.message) == (JobState.FAILED, "no such image (attempt 3 of 3)")


def test_a_queued_job_that_no_node_can_run_ends_when_it_is_resumed():
    ended = resumed(attempts=1, permanent=True).job
    assert (ended.state, ended.message) == (JobState.FAILED, "no such image")


def closes(actions: list[ev.Action]) -> list[str]:
    return [action.message.kind for action in actions if isinstance(action, ev.Broadcast)]


def test_the_end_of_a_job_cancels_its_executions_and_closes_bidding(bench):
    bench.add_nodes(A, B)
    bench.submit(job(2))
    bench.bid(A)
    bench.wait(FIRST_WINDOW)
    bench.handle(ev.NodeConnected(B))
    actions = bench.handle(ev.CancelRequested(JOB, ""))
    assert sent(actions) == [(A, "cancel_execution"), (B, "job_closed")]
    assert (bench.job.state, bench.job.message) == (JobState.STOPPED, "cancelled by the user")
    assert bench.states() == {A: S.CANCELLED}


def test_the_end_of_a_job_rejects_the_bids_on_it(bench):
    bench.add_nodes(A, B)
    bench.submit(job(Deal={"MinBids": 2}))
    bench.bid(A)
    actions = bench.handle(ev.CancelRequested(JOB, "changed my mind"))
    assert sent(actions) == [(A, "bid_rejected")]
    assert bench.states() == {A: S.BID_REJECTED}
