"""Jobs for which there was no room: what is kept of them, and the bids that they get later."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.messages import JobAnnounced
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute import missed_jobs
from bacalhau_p2p.compute.announcements import MAX_IN_VAIN
from bacalhau_p2p.compute.bidding import Assessment, Findings
from bacalhau_p2p.compute.considered_job import ConsideredJob
from bacalhau_p2p.compute.missed_jobs import REMEMBER_FOR, MissedJobs
from bacalhau_p2p.compute.shares import Shares
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from tests.support.machines.compute_bench import ALICE, ComputeBench, small_job
from tests.support.machines.machine_bench import messages_in

INPUT = {"InputSources": [{"Target": "/inputs", "Source": {"Type": "ipfs", "Params": {"CID": "bafkqaaa"}}}]}


def missed(job_id: str, author: str = "alice", *, padding: int = 0, priority: int = 0) -> ConsideredJob:
    spec = small_job(Priority=priority, Meta={"padding": "x" * padding})
    message = JobAnnounced(job_id=JobID(job_id), spec=spec, bids_wanted=1, round=1, deadline=3600.0)
    return ConsideredJob(PeerID(author), message, Assessment(), 0.0, 0.0, None, 0.0)


def names(jobs: MissedJobs, now: float = 0.0) -> list[str]:
    return [job.message.job_id for job in jobs.in_order(now)]


# --- what is kept ---------------------------------------------------------------------------


def test_a_job_that_is_not_announced_again_is_forgotten():
    jobs = MissedJobs()
    jobs.remember(missed("j-1"), 0.0)
    assert names(jobs, REMEMBER_FOR - 1) == ["j-1"]
    assert names(jobs, REMEMBER_FOR) == []


def test_the_requester_with_most_jobs_loses_its_least_urgent_one(monkeypatch):
    monkeypatch.setattr(missed_jobs, "MAX_JOBS", 3)
    jobs = MissedJobs()
    jobs.remember(missed("honest", "bob"), 0.0)
    for number in range(3):
        jobs.remember(missed(f"j-{number}", priority=number), 0.0)
    assert names(jobs) == ["j-2", "j-1", "honest"]


def test_large_jobs_do_not_displace_those_of_other_requesters(monkeypatch):
    monkeypatch.setattr(missed_jobs, "MAX_BYTES", 20_000)
    jobs = MissedJobs()
    for number in range(5):
        jobs.remember(missed(f"small-{number}", "bob"), 0.0)
    for number in range(5):
        jobs.remember(missed(f"large-{number}", padding=4000), 0.0)
    assert names(jobs)[-5:] == [f"small-{number}" for number in range(5)]
    assert len(jobs) < 10


def test_what_is_taken_leaves_room(monkeypatch):
    monkeypatch.setattr(missed_jobs, "MAX_BYTES", 8000)
    jobs = MissedJobs()
    for number in range(5):
        jobs.remember(missed(f"j-{number}", padding=4000), 0.0)
        jobs.take((PeerID("alice"), JobID(f"j-{number}")))
    jobs.remember(missed("last", padding=4000), 0.0)
    assert names(jobs) == ["last"]


# --- late bids ------------------------------------------------------------------------------


@pytest.fixture
def bench():
    """A node that is full with e-1 and e-2."""
    bench = ComputeBench()
    for number in (1, 2):
        bench.announce(job_id=f"f-{number}")
    return bench


def free(bench: ComputeBench, number: int = 1) -> list[say.Message]:
    """Room for one job is released. Returns the messages that follow."""
    rejected = say.BidRejected(job_id=JobID(f"f-{number}"), execution_id=ExecutionID(f"e-{number}"))
    return messages_in(bench.receive(rejected))


def test_a_node_bids_as_soon_as_it_has_room_for_a_job_that_it_declined(bench):
    (declined,) = messages_in(bench.announce(job_id="j-1"))
    assert (declined.kind, declined.busy) == ("bid_declined", True)
    (bid,) = free(bench)
    assert (bid.kind, bid.job_id, bid.late) == ("bid", "j-1", True)


def test_a_bid_for_which_there_was_room_at_once_is_not_late(bench):
    free(bench)
    (bid,) = messages_in(bench.announce(job_id="j-1"))
    assert bid.late is False


def test_only_as_many_jobs_get_late_bids_as_there_is_room_for(bench):
    bench.announce(job_id="j-1")
    bench.announce(job_id="j-2")
    assert [bid.job_id for bid in free(bench, 1)] == ["j-1"]
    assert [bid.job_id for bid in free(bench, 2)] == ["j-2"]


def test_late_bids_go_to_urgent_jobs_first_and_then_to_older_ones(bench):
    bench.announce(job_id="old")
    bench.now = 1.0
    bench.announce(job_id="new")
    bench.announce(small_job(Priority=1), job_id="urgent")
    assert [bid.job_id for bid in free(bench, 1) + free(bench, 2)] == ["urgent", "old"]


def test_a_job_does_not_get_younger_when_it_is_announced_again(bench):
    bench.announce(job_id="old")
    bench.now = 1.0
    bench.announce(job_id="new")
    bench.announce(job_id="old", round=2)
    (bid,) = free(bench)
    assert (bid.job_id, bid.round) == ("old", 2)


def test_a_job_that_is_closed_gets_no_late_bid(bench):
    bench.announce(job_id="j-1")
    bench.receive(say.JobClosed(job_id=JobID("j-1")))
    assert free(bench) == []


def test_a_node_that_stops_bids_on_nothing_late(bench):
    bench.announce(job_id="j-1")
    bench.handle(ev.StopBidding())
    assert free(bench) == []


def test_a_job_that_never_fits_is_not_remembered(bench):
    bench.announce(small_job(cpu="9"), job_id="j-1")
    assert free(bench) == []


def test_jobs_with_inputs_are_inspected_one_after_the_other_when_there_is_room(bench):
    for number in (1, 2, 3):
        bench.announce(small_job(task=INPUT), job_id=f"j-{number}")
    actions = bench.receive(say.BidRejected(job_id=JobID("f-1"), execution_id=ExecutionID("e-1")))
    assert [each.job_id for each in actions if isinstance(each, ev.Inspect)] == ["j-1"]
    actions = bench.handle(ev.Inspected(ALICE, JobID("j-1"), Findings(refusal="an input is missing")))
    assert [each.job_id for each in actions if isinstance(each, ev.Inspect)] == ["j-2"]
    actions = bench.handle(ev.Inspected(ALICE, JobID("j-2"), Findings(disk=10)))
    assert [(bid.job_id, bid.late) for bid in messages_in(actions)] == [("j-2", True)]
    assert [each for each in actions if isinstance(each, ev.Inspect)] == []


def test_room_goes_to_others_without_a_look_at_all_jobs_of_one_that_may_have_none(monkeypatch):
    looks = []
    refusal = Shares.refusal
    monkeypatch.setattr(Shares, "refusal", lambda self, *terms: looks.append(terms) or refusal(self, *terms))
    bench = ComputeBench()
    for number in range(200):
        bench.announce(small_job(cpu="0.1"), f"m-{number}", author=PeerID("mallory"))
    (bid,) = messages_in(bench.announce(small_job(cpu="0.5"), "mine"))
    (declined,) = messages_in(bench.announce(small_job(cpu="0.5"), "next", author=PeerID("carol")))
    assert declined.busy
    looks.clear()
    rejected = say.BidRejected(job_id=JobID("mine"), execution_id=bid.execution_id)
    (late,) = messages_in(bench.receive(rejected))
    assert late.job_id == "next"
    assert len(looks) <= MAX_IN_VAIN + 5
