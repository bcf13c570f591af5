from __future__ import annotations

from bacalhau_p2p.bprotocol.messages import JobAnnounced
from bacalhau_p2p.compute.bidding import Assessment, Findings
from bacalhau_p2p.compute.considered_job import ConsideredJob
from bacalhau_p2p.model.base import JobID, PeerID
from tests.support.machines.compute_bench import small_job


def considered(job_id: str, *, priority: int = 0, since: float = 0.0) -> ConsideredJob:
    message = JobAnnounced(
        job_id=JobID(job_id), spec=small_job(Priority=priority), bids_wanted=1, round=1, deadline=3600.0
    )
    return ConsideredJob(PeerID("alice"), message, Assessment(), since, since, None, since)


def test_more_urgent_jobs_come_first_and_then_older_ones():
    jobs = [considered("new", since=2), considered("old", since=1), considered("urgent", since=3, priority=1)]
    assert [job.message.job_id for job in sorted(jobs, key=lambda job: job.urgency)] == [
        "urgent",
        "old",
        "new",
    ]


def test_a_job_needs_disk_for_inputs_once_their_size_is_known():
    job = considered("j-1")
    assert job.needs.disk == 0
    job.findings = Findings(disk=500)
    assert job.needs.disk == 500
