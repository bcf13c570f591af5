"""Progress counts each job and execution once, and how long it spent in each state."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from bacalhau_p2p.metrics import progress
from bacalhau_p2p.metrics.progress import Progress
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import ExecutionState, JobState

SPEC = job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}}]})


def job(state, now, *, name="j", revision=1):
    return Job(
        id=JobID(name),
        spec=SPEC,
        state=state,
        requester_id=PeerID("r"),
        created=100.0,
        modified=now,
        revision=revision,
    )


def execution(state, now, name="e"):
    return Execution(
        id=ExecutionID(name),
        job_id=JobID("j"),
        node_id=PeerID("n"),
        state=state,
        created=100.0,
        modified=now,
    )


class Measured:
    def __init__(self):
        self.registry = CollectorRegistry()
        self.progress = Progress(self.registry)

    def count(self, *records):
        for record in records:
            self.progress.count(record)

    def value(self, name, **labels):
        return self.registry.get_sample_value(f"bacalhau_p2p_{name}", labels)


def test_a_job_counts_when_it_is_submitted_and_when_it_ends():
    measured = Measured()
    measured.count(job(JobState.PENDING, 100.0))
    measured.count(job(JobState.QUEUED, 101.0, revision=2))
    measured.count(job(JobState.RUNNING, 104.0, revision=3))
    measured.count(job(JobState.RUNNING, 105.0, revision=4))  # only its message changed
    measured.count(job(JobState.COMPLETED, 110.0, revision=5))
    assert measured.value("jobs_submitted_total") == 1
    assert measured.value("jobs_ended_total", state="Completed") == 1
    assert measured.value("job_queue_seconds_sum") == 4.0
    assert measured.value("job_queue_seconds_count") == 1
    assert measured.value("job_duration_seconds_sum", state="Completed") == 10.0


def test_a_job_of_an_earlier_process_is_not_submitted_again():
    measured = Measured()
    measured.count(job(JobState.RUNNING, 104.0, revision=3))
    measured.count(job(JobState.FAILED, 105.0, revision=4))
    assert measured.value("jobs_submitted_total") == 0
    assert measured.value("jobs_ended_total", state="Failed") == 1


def test_an_execution_counts_when_its_bid_is_accepted_and_when_it_ends():
    measured = Measured()
    measured.count(
        execution(ExecutionState.BID_ACCEPTED, 101.0), execution(ExecutionState.BID_REJECTED, 101.0, "f")
    )
    measured.count(execution(ExecutionState.RESULT_PROPOSED, 102.0))
    measured.count(execution(ExecutionState.COMPLETED, 103.0))
    assert measured.value("bids_accepted_total") == 1
    assert measured.value("executions_ended_total", state="Completed") == 1
    assert measured.value("executions_ended_total", state="BidRejected") == 1


def test_what_is_remembered_of_unfinished_work_is_bounded(monkeypatch):
    monkeypatch.setattr(progress, "MAX_FOLLOWED", 2)
    measured = Measured()
    for name in "abc":
        measured.count(job(JobState.PENDING, 100.0, name=name))
    for name in "abc":
        measured.count(job(JobState.STOPPED, 101.0, name=name, revision=2))
    assert measured.value("jobs_ended_total", state="Stopped") == 3
    assert not measured.progress._states
