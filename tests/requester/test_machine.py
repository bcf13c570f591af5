"""A job from its submission to its end: `machine`, `progress`, `ledger`, `record` and `events`."""

from __future__ import annotations

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.job import NO_SPEC
from bacalhau_p2p.model.state import ComputeState, JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.execution_transitions import RETRY_PAUSES
from bacalhau_p2p.requester.groups import MAX_ATTEMPTS
from bacalhau_p2p.requester.ledger import MAX_ENDED, REMEMBER_ENDED_FOR
from bacalhau_p2p.requester.liveness import LOST_WITHOUT_REPLACEMENT
from bacalhau_p2p.requester.progress import Progress
from bacalhau_p2p.requester.supervision import MAX_STRAY_CANCELS
from tests.support.machines.requester_bench import (
    JOB,
    A,
    B,
    C,
    D,
    S,
    announced,
    execution_id,
    heartbeat_of,
    job,
    proposed,
    run_on,
    sent,
)

# --- the journey ----------------------------------------------------------------------------


def test_a_job_is_stored_before_it_is_announced(bench):
    actions = bench.submit(job())
    kinds = [type(action) for action in actions]
    assert kinds == [ev.Store, ev.Append, ev.Broadcast, ev.Append]
    assert bench.job.state is JobState.PENDING


def test_a_job_goes_from_bid_to_completed(bench):
    bench.add_nodes(A)
    bench.submit(job())
    assert sent(bench.bid(A)) == [(A, "bid_accepted")]
    assert bench.job.state is JobState.RUNNING
    (verify,) = [action for action in bench.propose(A) if isinstance(action, ev.Verify)]
    assert [proposal.node_id for proposal in verify.proposals] == [A]
    bench.judge(accepted=[A])
    assert bench.states() == {A: S.RESULT_ACCEPTED}
    bench.publish(A)
    assert (bench.job.state, bench.states()) == (JobState.COMPLETED, {A: S.COMPLETED})


def test_one_wrong_result_of_three_is_rejected_and_the_job_completes(bench):
    run_on(bench, job(3, verifier="deterministic"), A, B, C)
    bench.propose(A)
    bench.propose(B, "wrong")
    assert any(isinstance(action, ev.Verify) for action in bench.propose(C))
    bench.judge(accepted=[A, C], rejected=[B], reason="differs from 2 others")
    assert bench.states() == {A: S.RESULT_ACCEPTED, B: S.RESULT_REJECTED, C: S.RESULT_ACCEPTED}
    bench.publish(A)
    assert bench.job.state is JobState.RUNNING
    bench.publish(C)
    assert bench.job.state is JobState.COMPLETED
    assert "1 of 3 results rejected" in bench.job.message


def test_no_agreement_fails_the_job_with_the_verifiers_reason(bench):
    run_on(bench, job(2, verifier="deterministic"), A, B)
    bench.propose(A)
    bench.propose(B, "other")
    bench.judge(accepted=[], rejected=[A, B], reason="no 2 of 2 results agree")
    assert (bench.job.state, bench.job.message) == (JobState.FAILED, "no 2 of 2 results agree")


# --- trouble --------------------------------------------------------------------------------


def test_a_failed_execution_is_replaced_on_another_node(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    bench.bid(A, load=0)
    bench.bid(B, load=0.5)
    assert not announced(bench.fail(A))
    assert announced(bench.wait(RETRY_PAUSES[0]))
    bench.bid(A, attempt=2)
    assert sent(bench.bid(B, attempt=2)) == [(B, "bid_accepted"), (A, "bid_rejected")]


def test_a_permanent_failure_ends_the_job_at_once_with_its_cause(bench):
    bench.add_nodes(A)
    bench.submit(job())
    bench.bid(A)
    bench.fail(A, permanent=True)
    assert (bench.job.state, bench.job.message) == (JobState.FAILED, "no such image")


def test_one_untrusted_node_cannot_end_a_verified_job(bench):
    run_on(bench, job(3, verifier="deterministic"), A, B, C)
    bench.fail(A, permanent=True)
    assert bench.job.state is JobState.RUNNING
    bench.fail(B, permanent=True)
    assert bench.job.state is JobState.FAILED


def test_a_slot_gets_three_attempts(bench):
    bench.add_nodes(A)
    bench.submit(job())
    for attempt in range(1, MAX_ATTEMPTS + 1):
        bench.bid(A, attempt=attempt)
        bench.fail(A, attempt=attempt)
        bench.wait(RETRY_PAUSES[-1])
    assert bench.job.state is JobState.FAILED
    assert bench.job.message == "no such image (attempt 3 of 3)"


def test_a_node_that_works_on_an_ended_execution_is_told_to_stop(bench):
    bench.add_nodes(A)
    bench.submit(job())
    bench.bid(A)
    bench.wait(LOST_WITHOUT_REPLACEMENT + 1)
    assert sent(bench.propose(A)) == [(A, "cancel_execution")]
    unknown = say.Heartbeat(
        executions=(say.ExecutionProgress(execution_id=ExecutionID("e-9"), state=ComputeState.RUNNING),)
    )
    assert sent(bench.receive(A, unknown)) == [(A, "cancel_execution")]


def test_cancelling_stops_every_execution(bench):
    run_on(bench, job(2), A, B)
    actions = bench.handle(ev.CancelRequested(JOB, "changed my mind"))
    assert sorted(sent(actions)) == [(A, "cancel_execution"), (B, "cancel_execution")]
    assert (bench.job.state, bench.job.message) == (JobState.STOPPED, "changed my mind")


def test_the_total_time_out_ends_the_job(bench):
    bench.add_nodes(A)
    bench.submit(job(Tasks=[{"Engine": {"Type": "noop"}, "Timeouts": {"TotalTimeout": 60}}]))
    bench.bid(A)
    beat = say.Heartbeat(
        executions=(say.ExecutionProgress(execution_id=execution_id(A), state=ComputeState.RUNNING),)
    )
    for _ in range(13):
        bench.wait(5)
        if not bench.job.state.terminal:
            bench.receive(A, beat)
    assert bench.job.state is JobState.FAILED
    assert "total timeout of 60 s" in bench.job.message


# --- lies -----------------------------------------------------------------------------------


def test_only_the_node_of_an_execution_can_report_about_it(bench):
    bench.add_nodes(A)
    bench.submit(job())
    bench.bid(A)
    before = (bench.job, bench.states())
    assert bench.receive(B, proposed(A, "forged")) == []
    assert bench.receive(B, say.ExecutionFailed(job_id=JOB, execution_id=execution_id(A), reason="x")) == []
    assert (bench.job, bench.states()) == before
    assert bench.machine.ignored == {
        "ResultProposed from another node": 1,
        "ExecutionFailed from another node": 1,
    }


def test_a_bid_with_the_id_of_another_execution_is_ignored(bench):
    run_on(bench, job(), A)
    other = JobID("j-2")
    bench.handle(ev.Submitted(other, job()))
    stolen = say.Bid(job_id=other, execution_id=execution_id(A), reserved_for=30)
    assert bench.receive(B, stolen) == []
    assert bench.machine.jobs[other].executions == {}
    line = say.ExecutionProgress(execution_id=execution_id(A), state=ComputeState.RUNNING)
    for _ in range(5):
        bench.wait(15)
        bench.receive(A, say.Heartbeat(executions=(line,)))
    assert bench.states() == {A: S.BID_ACCEPTED}


def test_a_proposal_of_another_node_cannot_be_replayed(bench):
    run_on(bench, job(2, verifier="deterministic"), A, B)
    bench.receive(A, proposed(A))
    bench.receive(B, proposed(B, made_by=A))
    assert bench.states() == {A: S.RESULT_PROPOSED, B: S.FAILED}


def test_publishing_another_result_than_the_verified_one_fails_the_execution(bench):
    bench.add_nodes(A)
    bench.submit(job())
    bench.bid(A)
    bench.propose(A)
    bench.judge(accepted=[A])
    bench.publish(A, "swapped")
    assert bench.states() == {A: S.FAILED}
    assert bench.job.state is JobState.RUNNING


def test_a_job_completes_if_one_of_several_equal_results_is_published(bench):
    run_on(bench, job(2, verifier="deterministic"), A, B)
    bench.propose(A)
    bench.propose(B)
    bench.judge(accepted=[A, B])
    bench.fail(A)
    assert bench.job.state is JobState.RUNNING
    bench.publish(B)
    assert bench.job.state is JobState.COMPLETED


def test_a_job_runs_again_if_none_of_the_equal_results_is_published(bench):
    run_on(bench, job(2, verifier="deterministic"), A, B)
    bench.propose(A)
    bench.propose(B)
    bench.judge(accepted=[A, B])
    bench.fail(A)
    bench.fail(B)
    assert announced(bench.wait(RETRY_PAUSES[0]))


def test_a_node_that_fails_at_once_does_not_use_up_all_attempts_at_once(bench):
    bench.add_nodes(A)
    bench.submit(job())
    for attempt in range(1, MAX_ATTEMPTS + 1):
        bench.bid(A, attempt=attempt)
        bench.fail(A, attempt=attempt)
        while not bench.job.state.terminal and bench.machine.jobs[JOB].round.ends is None:
            bench.wait(0.1)
    assert bench.job.state is JobState.FAILED
    assert bench.now >= sum(RETRY_PAUSES)


def test_a_late_result_is_judged_together_with_those_accepted_before(bench):
    run_on(bench, job(3, verifier="deterministic"), A, B, C)
    for node in (A, B, C):
        bench.propose(node)
    bench.fail(C)
    bench.add_nodes(D)
    bench.judge(accepted=[A, B], rejected=[C])
    bench.wait(5)
    bench.bid(D)
    (verify,) = [action for action in bench.propose(D) if isinstance(action, ev.Verify)]
    assert {proposal.node_id for proposal in verify.proposals} == {A, B, D}


def test_messages_after_the_end_change_nothing(bench):
    test_a_job_goes_from_bid_to_completed(bench)
    before = (bench.job, bench.states())
    bench.publish(A)
    bench.propose(A)
    bench.fail(A)
    bench.judge(accepted=[], rejected=[A])
    assert (bench.job, bench.states()) == before


def test_an_ended_job_is_forgotten_after_a_while(bench):
    test_a_job_goes_from_bid_to_completed(bench)
    bench.wait(1000)
    assert bench.machine.jobs == {}
    assert bench.machine.next_deadline() is None


# --- records that cannot be stored ------------------------------------------------------------


def test_an_execution_whose_report_cannot_be_stored_fails_and_its_report_is_dropped(bench):
    run_on(bench, job(), A)
    bench.propose(A)
    record = bench.machine.jobs[JOB].executions[execution_id(A)]
    assert record.proposal is not None
    actions = bench.handle(ev.NotStored(record, "it cannot be stored: x"))
    stored = [action.record for action in actions if isinstance(action, ev.Store)]
    failed = next(each for each in stored if each.id == record.id)
    assert (failed.state, failed.proposal) == (S.FAILED, None)
    assert failed.message == "this node failed: it cannot be stored: x"
    assert (A, "cancel_execution") in sent(actions)


def test_what_a_completed_execution_cannot_store_is_left_out(bench):
    run_on(bench, job(), A)
    bench.propose(A)
    bench.judge(accepted=[A])
    bench.publish(A)
    record = bench.machine.jobs[JOB].executions[execution_id(A)]
    (stored,) = bench.handle(ev.NotStored(record, "x"))
    assert (stored.record.state, stored.record.published) == (S.COMPLETED, None)


def test_a_job_whose_record_cannot_be_stored_fails_with_a_reason(bench):
    run_on(bench, job(), A)
    bench.handle(ev.NotStored(bench.job, "x"))
    assert (bench.job.state, bench.job.message) == (JobState.FAILED, "this node failed: x")


def test_a_job_that_has_ended_is_stored_without_what_cannot_be_stored(bench):
    run_on(bench, job(), A)
    bench.handle(ev.CancelRequested(JOB, "\ud800"))
    (stored,) = bench.handle(ev.NotStored(bench.job, "x"))
    assert (stored.record.state, stored.record.message) == (JobState.STOPPED, "this node failed: x")


# --- what strangers say -----------------------------------------------------------------------


def test_a_heartbeat_about_unknown_executions_is_answered_a_few_times_and_nothing_is_kept(bench):
    lines = tuple(
        say.ExecutionProgress(execution_id=f"x-{n}", state=ComputeState.RUNNING) for n in range(1000)
    )
    actions = bench.receive(A, say.Heartbeat(executions=lines))
    assert len(actions) == MAX_STRAY_CANCELS
    assert {action.durable for action in actions} == {False}


def test_the_rejection_of_a_bid_on_an_unknown_job_is_not_kept(bench):
    bid = say.Bid(job_id=JobID("unknown"), execution_id="e-x", reserved_for=1e300)
    (rejected,) = bench.receive(A, bid)
    assert (rejected.durable, rejected.give_up_at <= bench.now + 60) == (False, True)


# --- what is remembered ---------------------------------------------------------------------


def test_what_is_remembered_of_ended_jobs_is_bounded(bench):
    for number in range(MAX_ENDED + 5):
        job_id = JobID(f"j-{number}")
        bench.handle(ev.Submitted(job_id, job()))
        bench.handle(ev.CancelRequested(job_id, ""))
    bench.submit(job())
    assert len(bench.machine.jobs) == MAX_ENDED + 1
    assert {"j-4", "j-5"} & bench.machine.jobs.keys() == {"j-5"}


def test_an_ended_job_is_remembered_without_its_spec_and_its_results(bench):
    run_on(bench, job(Name="long"), A)
    bench.propose(A)
    bench.judge(accepted=[A])
    actions = bench.publish(A)
    entry = bench.machine.jobs[JOB]
    assert entry.job.spec == NO_SPEC
    assert [(e.proposal, e.published) for e in entry.executions.values()] == [(None, None)]
    stored = [action.record for action in actions if isinstance(action, ev.Store)]
    assert [record.spec.name for record in stored if isinstance(record, Job)] == ["long"]
    assert [e.published is not None for e in stored if isinstance(e, Execution)] == [True]


def test_messages_about_a_job_that_is_no_longer_remembered_make_nothing_durable(bench):
    run_on(bench, job(), A)
    bench.propose(A)
    bench.judge(accepted=[A])
    bench.publish(A)
    bench.wait(REMEMBER_ENDED_FOR + 1)
    assert bench.machine.jobs == {}
    actions = [*bench.publish(A), *bench.propose(A), *bench.fail(A), *bench.bid(B), *bench.bid(A)]
    actions += bench.receive(A, heartbeat_of(A))
    assert {type(action) for action in actions} == {ev.Send}
    assert [action for action in actions if action.durable] == []


def test_what_changes_nothing_is_handled_without_a_look_at_the_whole_job(bench, monkeypatch):
    """A job may have a thousand executions, and everybody knows its id."""
    bench.add_nodes(A)
    bench.submit(job(1))
    bench.bid(A)
    looked = []
    monkeypatch.setattr(Progress, "advance", lambda self, entry, now: looked.append(entry))
    stranger, running, unknown = PeerID("stranger"), execution_id(A), ExecutionID("unknown")
    bench.bid(stranger)  # no slot is open
    bench.bid(A)  # a repetition
    bench.receive(stranger, say.BidDeclined(job_id=JOB, round=1, reason="no"))
    for execution in (running, unknown):
        bench.receive(stranger, say.ExecutionFailed(job_id=JOB, execution_id=execution, reason="no"))
        bench.receive(stranger, say.ResultProposed(job_id=JOB, execution_id=execution, sealed=b""))
    assert looked == []
    bench.propose(A)
    assert len(looked) == 1
