"""What a node keeps of announced jobs is bounded for each requester and for all."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute import held_jobs
from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.compute.held_jobs import HeldJobs
from bacalhau_p2p.compute.transitions import ACCEPTED_LATE_FOR, RESERVED_FOR
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.validation import size_of
from tests.support.machines.compute_bench import ALICE, JOB, ComputeBench, message_about, small_job
from tests.support.machines.machine_bench import messages_in

BOB, CAROL = PeerID("bob"), PeerID("carol")
SPEC = small_job(cpu="0.01")
SIZE = size_of(SPEC)
INPUT = {"Target": "/inputs", "Source": {"Type": "ipfs", "Params": {"CID": "bafkqaaa"}}}


@pytest.fixture
def bench(monkeypatch):
    """A node that holds the specs of three jobs of one requester, and of four of all."""
    monkeypatch.setattr(held_jobs, "MAX_SPEC_BYTES_OF_ONE", 3 * SIZE + 10)
    monkeypatch.setattr(held_jobs, "MAX_SPEC_BYTES", 4 * SIZE + 10)
    return ComputeBench()


def ask(bench: ComputeBench, name: str, author: PeerID = ALICE) -> say.Message:
    (answer,) = messages_in(bench.announce(SPEC, name, author=author))
    return answer


def test_specs_that_are_held_for_one_requester_and_for_all_are_bounded(bench):
    assert [ask(bench, f"j-{number}").kind for number in range(3)] == ["bid"] * 3
    declined = ask(bench, "j-3")
    assert (declined.kind, declined.reason, declined.busy) == ("bid_declined", "holds too many jobs", True)
    assert [ask(bench, "j-1", author).kind for author in (BOB, CAROL)] == ["bid", "bid_declined"]


def test_the_number_of_jobs_of_one_requester_is_bounded(monkeypatch):
    monkeypatch.setattr(held_jobs, "MAX_JOBS_OF_ONE", 2)
    bench = ComputeBench()
    assert [ask(bench, f"j-{number}").kind for number in range(3)] == ["bid", "bid", "bid_declined"]
    assert ask(bench, "j-1", BOB).kind == "bid"


def test_a_job_is_held_until_its_execution_has_ended(bench):
    bids = [ask(bench, f"j-{number}") for number in range(3)]
    for bid in bids[:2]:
        bench.receive(say.BidAccepted(job_id=bid.job_id, execution_id=bid.execution_id))
    bench.handle(ev.Prepared(bids[0].execution_id))
    bench.handle(ev.RunFinished(bids[0].execution_id, "cid", b"sealed"))
    bench.receive(say.JobClosed(job_id=bids[1].job_id))
    assert ask(bench, "j-3").kind == "bid_declined"
    bench.receive(say.ResultRejected(job_id=bids[0].job_id, execution_id=bids[0].execution_id))
    assert ask(bench, "j-3").kind == "bid"
    assert ask(bench, "j-4").kind == "bid_declined"


@pytest.mark.parametrize("end", ["closed", "refused", "too late"])
def test_a_job_that_is_inspected_is_held_until_then(bench, end):
    spec = small_job(task={"InputSources": [INPUT]})
    for number in range(2):
        bench.announce(spec, f"j-{number}")
    held = bench.machine._ledger.held_jobs
    assert held._all.jobs == 2
    for number in range(2):
        job_id = JobID(f"j-{number}")
        if end == "closed":
            bench.receive(say.JobClosed(job_id=job_id))
        elif end == "refused":
            bench.handle(ev.Inspected(ALICE, job_id, Findings(refusal="no")))
    if end == "too late":
        bench.wait(100)
    assert (held._all.jobs, held._all.size, held._of_one, held._sizes) == (0, 0, {}, {})


def test_bids_that_expire_are_held_no_more(bench):
    for number in range(3):
        ask(bench, f"j-{number}")
    for seconds in (RESERVED_FOR, ACCEPTED_LATE_FOR):
        bench.wait(seconds)
    assert bench.machine._ledger.held_jobs._all.size == 0


def test_what_was_resumed_is_held():
    bench = ComputeBench()
    bench.announce()
    bench.receive(message_about(say.BidAccepted))
    again = ComputeBench()
    again.handle(ev.Resumed(bench.machine.executions["e-1"]))
    assert again.machine._ledger.held_jobs._sizes.keys() == {(ALICE, JOB)}


def test_a_job_counts_once():
    held = HeldJobs()
    held.hold(ALICE, JOB, SPEC)
    held.hold(ALICE, JOB, SPEC)
    held.drop(ALICE, JOB)
    held.drop(ALICE, JOB)
    assert (held._all.jobs, held._all.size, held._of_one) == (0, 0, {})
