"""What a requester still knows of its jobs after it was killed."""

from __future__ import annotations

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester.progress import MAX_ATTEMPTS
from tests.support.machines.requester_bench import (
    JOB,
    A,
    B,
    C,
    D,
    S,
    announced,
    execution_id,
    job,
    refill,
    restarted,
    run_to_proposals,
)


def test_attempts_are_counted_over_all_lives_of_the_requester(bench):
    bench.know(A, B, C, D)
    bench.submit(job())
    for node in (A, B, C):
        refill(bench, node)
        bench = restarted(bench)
        assert bench.job.state is JobState.RUNNING
        bench.fail(node)
    assert bench.job.state is JobState.FAILED
    assert bench.job.message == f"no such image (attempt {MAX_ATTEMPTS} of {MAX_ATTEMPTS})"


def test_attempts_are_counted_for_each_slot(bench):
    run_to_proposals(bench, job(2), A, B)
    bench.fail(A)
    refill(bench, C)
    bench.fail(C)
    bench = restarted(bench)
    assert [slot.attempts for slot in bench.machine.jobs[JOB].slots] == [2, 1]
    refill(bench, D)
    bench.fail(B)
    bench.wait(1)
    assert bench.job.state is JobState.RUNNING
    bench.fail(D)
    assert bench.job.state is JobState.FAILED


def test_what_a_node_handed_back_is_no_attempt_after_a_restart_either(bench):
    bench.know(A, B, C, D)
    bench.submit(job())
    refill(bench, A)
    back = say.ExecutionFailed(
        job_id=JOB, execution_id=execution_id(A), reason="the node was stopped", drained=True
    )
    bench.hear(A, back)
    bench = restarted(bench)
    assert [slot.attempts for slot in bench.machine.jobs[JOB].slots] == [0]


def test_a_second_witness_ends_the_job_though_the_requester_was_restarted_after_the_first(bench):
    run_to_proposals(bench, job(2, verifier="deterministic"), A, B)
    bench.fail(A, permanent=True)
    bench = restarted(bench)
    assert bench.job.state is JobState.RUNNING
    bench.fail(B, permanent=True)
    assert (bench.job.state, bench.job.message) == (JobState.FAILED, "no such image")


def test_nodes_that_failed_a_job_are_tried_last_after_a_restart_too(bench):
    bench.know(A, B)
    bench.submit(job())
    refill(bench, A)
    bench.fail(A)
    bench = restarted(bench)
    bench.bid(A, attempt=2, load=0.0)
    bench.bid(B, load=0.9)
    bench.wait(1)
    assert bench.states()[B] is S.BID_ACCEPTED


def test_a_restart_does_not_run_again_what_a_twin_publishes(bench):
    run_to_proposals(bench, job(2, verifier="deterministic"), A, B)
    bench.propose(A)
    bench.propose(B)
    bench.judge(accepted=[A, B])
    bench.fail(A)
    again = restarted(bench)
    assert announced(again.done[len(bench.done) :]) == []
    again.publish(B)
    assert again.job.state is JobState.COMPLETED


def test_a_restart_resumes_where_the_store_stood(bench):
    run_to_proposals(bench, job(2), A, B)
    again = restarted(bench)
    again.propose(A)
    again.propose(B)
    again.judge(accepted=[A, B])
    again.publish(A)
    again.publish(B)
    assert again.job.state is JobState.COMPLETED
