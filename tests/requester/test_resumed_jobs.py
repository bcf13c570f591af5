"""What a requester still knows about its jobs after it was killed (`record`)."""

from __future__ import annotations

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.groups import MAX_ATTEMPTS
from tests.support.machines.requester_bench import (
    JOB,
    A,
    B,
    C,
    D,
    RequesterBench,
    S,
    announced,
    execution_id,
    job,
    place_on,
    restarted,
    run_on,
)


def test_attempts_count_across_restarts_of_the_requester(bench):
    bench.add_nodes(A, B, C, D)
    bench.submit(job())
    for node in (A, B, C):
        place_on(bench, node)
        bench = restarted(bench)
        assert bench.job.state is JobState.RUNNING
        bench.fail(node)
    assert bench.job.state is JobState.FAILED
    assert bench.job.message == f"no such image (attempt {MAX_ATTEMPTS} of {MAX_ATTEMPTS})"


def test_attempts_are_counted_for_each_slot(bench):
    run_on(bench, job(2), A, B)
    bench.fail(A)
    place_on(bench, C)
    bench.fail(C)
    bench = restarted(bench)
    assert [slot.attempts for slot in bench.machine.jobs[JOB].slots] == [2, 1]
    place_on(bench, D)
    bench.fail(B)
    bench.wait(1)
    assert bench.job.state is JobState.RUNNING
    bench.fail(D)
    assert bench.job.state is JobState.FAILED


def test_an_execution_that_was_handed_back_is_no_attempt_after_a_restart_either(bench):
    bench.add_nodes(A, B, C, D)
    bench.submit(job())
    place_on(bench, A)
    back = say.ExecutionFailed(
        job_id=JOB, execution_id=execution_id(A), reason="the node was stopped", drained=True
    )
    bench.receive(A, back)
    bench = restarted(bench)
    assert [slot.attempts for slot in bench.machine.jobs[JOB].slots] == [0]


def test_reports_that_no_node_can_run_the_job_count_across_restarts(bench):
    run_on(bench, job(2, verifier="deterministic"), A, B)
    bench.fail(A, permanent=True)
    bench = restarted(bench)
    assert bench.job.state is JobState.RUNNING
    bench.fail(B, permanent=True)
    assert (bench.job.state, bench.job.message) == (JobState.FAILED, "no such image")


def test_nodes_that_failed_a_job_are_ranked_last_after_a_restart_too(bench):
    bench.add_nodes(A, B)
    bench.submit(job())
    place_on(bench, A)
    bench.fail(A)
    bench = restarted(bench)
    bench.bid(A, attempt=2, load=0.0)
    bench.bid(B, load=0.9)
    bench.wait(1)
    assert bench.states()[B] is S.BID_ACCEPTED


def test_a_restart_does_not_repeat_a_run_whose_result_another_node_publishes(bench):
    run_on(bench, job(2, verifier="deterministic"), A, B)
    bench.propose(A)
    bench.propose(B)
    bench.judge(accepted=[A, B])
    bench.fail(A)
    again = restarted(bench)
    assert announced(again.done[len(bench.done) :]) == []
    again.publish(B)
    assert again.job.state is JobState.COMPLETED


def test_a_job_completes_after_a_restart(bench):
    run_on(bench, job(2), A, B)
    again = restarted(bench)
    again.propose(A)
    again.propose(B)
    again.judge(accepted=[A, B])
    again.publish(A)
    again.publish(B)
    assert again.job.state is JobState.COMPLETED


def test_a_job_whose_total_time_out_is_over_when_it_is_resumed_ends_and_is_not_announced(bench):
    bench.submit(job())
    stored = bench.job
    later = RequesterBench()
    later.now = stored.created + stored.spec.total_timeout + 1
    actions = later.handle(ev.Resumed(stored, ()))
    assert later.job.state is JobState.FAILED
    assert not [a for a in actions if isinstance(a, ev.Broadcast) and isinstance(a.message, say.JobAnnounced)]


def test_a_job_whose_store_refused_that_it_is_running_completes_after_a_restart(bench):
    """It was resumed as Pending, and its result could not end it."""
    run_on(bench, job(), A)
    entry = bench.machine.jobs[JOB]
    stored = bench.job.replace(state=JobState.PENDING)
    again = RequesterBench()
    again.add_nodes(A)
    again.handle(ev.Resumed(stored, tuple(entry.executions.values())))
    assert again.job.state is JobState.RUNNING
    again.propose(A)
    again.judge(accepted=[A])
    again.publish(A)
    assert again.job.state is JobState.COMPLETED
