"""What a node answers to an announcement, at once or after it has inspected the job."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.announcements import INSPECTION_TIMEOUT, MAX_WAITING
from bacalhau_p2p.compute.bidding import NOT_DRAWN, Assessment, Findings
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.resources import Resources
from tests.support.machines.compute_bench import ALICE, FIRST, JOB, ComputeBench, message_about, small_job
from tests.support.machines.machine_bench import messages_in

BOB = PeerID("bob")
BOB = PeerID("bob")
GB = 1000**3
DISK = 10 * GB
INPUT = {"Target": "/inputs", "Source": {"Type": "ipfs", "Params": {"CID": "bafkqaaa"}}}


def job(*, disk: str = "", inputs: int = 1) -> JobSpec:
    sources = [{**INPUT, "Target": f"/inputs/{number}"} for number in range(inputs)]
    return small_job(task={"Resources": {"CPU": "0.5", "Disk": disk}, "InputSources": sources})


class Bench(ComputeBench):
    """A node with 10 GB of disk for jobs."""

    def __init__(self, *, rng: float = 0.5) -> None:
        super().__init__(disk=DISK, rng=rng)

    def found(self, job_id: str = JOB, **findings: object) -> list[ev.Action]:
        return self.handle(ev.Inspected(ALICE, JobID(job_id), Findings(**findings)))


def inspections(actions: list[ev.Action]) -> list[ev.Action]:
    return [action for action in actions if isinstance(action, ev.Inspect | ev.StopInspection)]


@pytest.fixture
def bench():
    return Bench()


# --- what is inspected ----------------------------------------------------------------------


def test_a_job_without_inputs_is_bid_on_at_once(bench):
    actions = bench.announce(job(inputs=0))
    assert inspections(actions) == []
    assert [message.kind for message in messages_in(actions)] == ["bid"]


def test_a_job_with_inputs_is_inspected_before_a_bid(bench):
    spec = job()
    actions = bench.announce(spec)
    assert inspections(actions) == [ev.Inspect(ALICE, JOB, spec)]
    assert messages_in(actions) == []
    (bid,) = messages_in(bench.found(input_bytes=500, local_input_bytes=200))
    assert (bid.kind, bid.input_bytes, bid.local_input_bytes) == ("bid", 500, 200)


@pytest.mark.parametrize(
    ("assessment", "busy"),
    [
        (Assessment(ineligibility="has no docker engine", needs_inspection=True), False),
        (Assessment(shortage="has almost no free disk", needs_inspection=True), True),
    ],
)
def test_a_job_that_the_assessment_rules_out_is_refused_at_once_with_the_reason(bench, assessment, busy):
    actions = bench.announce(assessment=assessment)
    assert inspections(actions) == []
    (decline,) = messages_in(actions)
    reason = assessment.ineligibility or assessment.shortage
    assert (decline.kind, decline.reason, decline.busy) == ("bid_declined", reason, busy)


def test_a_job_that_cannot_run_here_now_is_not_inspected(bench):
    full = Bench()
    full.announce(job(inputs=0), "j-2")
    full.announce(job(inputs=0), "j-3")
    actions = full.announce(job())
    assert inspections(actions) == []
    assert [(message.reason, message.busy) for message in messages_in(actions)] == [("is busy", True)]


def test_the_refusal_that_an_inspection_found_is_sent(bench):
    bench.announce(job())
    (decline,) = messages_in(bench.found(refusal="an input is missing"))
    assert (decline.kind, decline.reason) == ("bid_declined", "an input is missing")
    assert bench.machine.next_deadline() is None


def test_a_refusal_is_sent_only_if_answers_are_wanted(bench):
    bench.announce(job(), answers_wanted=False)
    assert bench.found(refusal="an input is missing") == []


# --- disk -----------------------------------------------------------------------------------


def test_disk_is_reserved_for_inputs_and_for_what_the_job_requests(bench):
    bench.announce(job(disk="2gb"))
    bench.found(input_bytes=3 * GB, disk=6 * GB)
    assert bench.machine.capacity.reserved.disk == 8 * GB
    bench.receive(say.BidRejected(job_id=JOB, execution_id=ExecutionID("e-1"), reason=""))
    assert bench.machine.capacity.reserved == Resources()


def test_inputs_that_do_not_fit_now_are_declined_with_both_amounts(bench):
    bench.announce(job(inputs=0, disk="7gb"), "j-2")
    bench.announce(job())
    (decline,) = messages_in(bench.found(input_bytes=4 * GB, disk=4 * GB))
    assert (decline.reason, decline.busy) == ("inputs need 4 GB of disk; 3 GB is free", True)
    assert bench.machine.capacity.reserved.disk == 7 * GB


def test_inputs_that_can_never_fit_are_declined_for_good(bench):
    bench.announce(job(disk="1gb"))
    (decline,) = messages_in(bench.found(input_bytes=6 * GB, disk=12 * GB))
    assert decline.reason == "inputs need 12 GB of disk and the job another 1 GB; 10 GB is free"
    assert decline.busy is False


def test_inputs_for_which_the_disk_itself_has_no_room_are_declined(bench):
    bench.announce(job())
    (decline,) = messages_in(bench.found(disk=6 * GB, shortage="inputs need 6 GB of disk; 5 GB is free"))
    assert (decline.reason, decline.busy) == ("inputs need 6 GB of disk; 5 GB is free", True)
    assert bench.machine.capacity.reserved == Resources()


def test_a_node_that_filled_up_during_the_inspection_is_busy(bench):
    bench.announce(job())
    bench.announce(job(inputs=0), "j-2")
    bench.announce(job(inputs=0), "j-3")
    (decline,) = messages_in(bench.found(disk=GB))
    assert decline.reason == "is busy"


def test_room_for_inputs_is_reserved_again_after_a_restart(bench):
    bench.announce(job())
    bench.found(disk=3 * GB)
    accepted = say.BidAccepted(job_id=JOB, execution_id=ExecutionID("e-1"))
    (stored,) = [a.record for a in bench.receive(accepted) if isinstance(a, ev.Store)]
    again = Bench()
    again.handle(ev.Resumed(stored))
    assert again.machine.capacity.reserved.disk == 3 * GB


# --- while it is inspected ------------------------------------------------------------------


def test_an_inspection_that_takes_longer_than_a_round_answers_the_latest_round(bench):
    bench.announce(job())
    assert bench.announce(job(), round=2) == []
    (bid,) = messages_in(bench.found())
    assert bid.round == 2


def test_a_job_that_is_announced_again_is_bid_on_with_what_was_found_before(bench):
    """Else the bids of nodes whose inspections take differently long would never be in one round."""
    bench.announce(job())
    bench.found(input_bytes=5)
    bench.receive(message_about(say.BidRejected))
    actions = bench.announce(job(), round=2)
    assert inspections(actions) == []
    assert [(m.kind, m.round, m.input_bytes) for m in messages_in(actions)] == [("bid", 2, 5)]


def test_an_inspection_says_nothing_about_another_job_of_the_same_id(bench):
    bench.announce(job())
    assert bench.announce(job(inputs=2), round=2) == []
    assert bench.machine.ignored == {"JobAnnounced with another spec than before": 1}
    (bid,) = messages_in(bench.found())
    assert bid.round == 1
    bench.receive(message_about(say.BidRejected))
    assert len(inspections(bench.announce(job(inputs=2), round=3))) == 1


def test_a_node_that_is_asked_only_if_it_has_the_inputs_bids_or_says_nothing(bench):
    (inspect,) = inspections(bench.announce(job(), only_if_local=True, answers_wanted=False))
    assert inspect == ev.Inspect(ALICE, JOB, job(), only_if_local=True)
    found = Findings(input_bytes=5, local_input_bytes=5)
    assert [m.kind for m in messages_in(bench.handle(ev.Inspected(ALICE, JOB, found, True)))] == ["bid"]
    bench.announce(job(), "j-2", only_if_local=True, answers_wanted=False)
    refused = Findings(refusal="runs only jobs whose inputs are local; /inputs is missing")
    assert messages_in(bench.handle(ev.Inspected(ALICE, JobID("j-2"), refused, True))) == []


def test_a_node_that_was_asked_only_if_it_has_the_inputs_looks_again_when_it_is_asked_in_any_case(bench):
    bench.announce(job(), only_if_local=True, answers_wanted=False)
    actions = bench.announce(job(), round=2)
    assert inspections(actions) == [ev.StopInspection(ALICE, JOB), ev.Inspect(ALICE, JOB, job())]
    late = Findings(refusal="runs only jobs whose inputs are local; /inputs is missing")
    assert bench.handle(ev.Inspected(ALICE, JOB, late, True)) == []
    assert [(m.kind, m.round) for m in messages_in(bench.found(input_bytes=5))] == [("bid", 2)]


def test_a_job_that_is_offered_only_to_those_that_have_its_inputs_is_not_remembered_without_room(bench):
    bench.announce(job(disk="8GB", inputs=0), "large")
    bench.announce(job(), only_if_local=True, answers_wanted=False)
    assert messages_in(bench.handle(ev.Inspected(ALICE, JOB, Findings(disk=5 * GB), True))) == []
    rejected = say.BidRejected(job_id=JobID("large"), execution_id=FIRST)
    assert messages_in(bench.receive(rejected)) == []


def test_the_inspection_of_a_closed_job_is_stopped(bench):
    bench.announce(job())
    closed = bench.receive(say.JobClosed(job_id=JOB))
    assert closed == [ev.StopInspection(ALICE, JOB)]
    assert bench.found() == []
    assert bench.machine.ignored == {"Inspected for a job that is not inspected": 1}


@pytest.mark.parametrize("end", [ev.StopBidding(), ev.HandBack()])
def test_a_node_that_stops_inspects_nothing_more(bench, end):
    bench.announce(job())
    assert bench.handle(end) == [ev.StopInspection(ALICE, JOB)]
    assert bench.found() == []


def test_an_inspection_that_never_ends_is_given_up(bench):
    bench.announce(job())
    actions = bench.wait(INSPECTION_TIMEOUT)
    assert inspections(actions) == [ev.StopInspection(ALICE, JOB)]
    assert [message.reason for message in messages_in(actions)] == ["could not inspect the job within 40 s"]
    assert len(inspections(bench.announce(job(), round=2))) == 1


def test_other_jobs_are_bid_on_while_one_is_inspected(bench):
    bench.announce(job())
    assert [message.kind for message in messages_in(bench.announce(job(inputs=0), "j-2"))] == ["bid"]


def test_where_not_everybody_may_bid_a_quick_inspection_does_not_change_when_to_bid(bench):
    assert len(inspections(bench.announce(job(), chance=0.1))) == 1
    assert bench.found(input_bytes=5) == []
    (bid,) = messages_in(bench.wait(1))
    assert (bid.kind, bid.input_bytes) == ("bid", 5)


def test_a_node_that_is_not_drawn_inspects_and_reserves_nothing(bench):
    assert bench.announce(job(), assessment=NOT_DRAWN) == []
    assert bench.machine.capacity.holders == frozenset()


def test_an_inspection_answers_the_latest_round_though_it_was_drawn_in_an_earlier_one_only(bench):
    bench.announce(job(), chance=0.1)
    assert bench.announce(job(), round=2, assessment=NOT_DRAWN) == []
    bench.wait(1)
    (bid,) = messages_in(bench.found())
    assert bid.round == 2


def test_a_flood_of_announcements_fills_no_memory(bench):
    jobs = [f"j-{number}" for number in range(MAX_WAITING + 10)]
    inspected = [job_id for job_id in jobs if inspections(bench.announce(job(), job_id))]
    assert len(inspected) == MAX_WAITING
    assert bench.machine.ignored == {"JobAnnounced while too many are pending": 10}


# --- requesters that are cut off ------------------------------------------------------------


def test_nothing_that_a_requester_has_not_accepted_is_kept_when_it_is_cut_off(bench):
    bench.announce(job(inputs=0))
    bench.announce(job(), job_id="inspected")
    bench.announce(job(inputs=0), job_id="other", author=BOB)
    actions = bench.handle(ev.RequesterCutOff(ALICE))
    assert inspections(actions) == [ev.StopInspection(ALICE, "inspected")]
    executions = bench.machine.executions.values()
    assert {(each.requester_id, str(each.state)) for each in executions} == {
        (ALICE, "Expired"),
        (BOB, "Bid"),
    }
    assert bench.machine.capacity.held_by(ALICE)[0] == 0


def test_no_late_bid_is_placed_for_a_requester_that_is_cut_off():
    bench = ComputeBench(known=(ALICE, BOB))
    for number in (1, 2):
        bench.announce(job_id=f"f-{number}", author=BOB)
    bench.announce(job_id="missed")
    bench.handle(ev.RequesterCutOff(ALICE))
    rejected = say.BidRejected(job_id=JobID("f-1"), execution_id=ExecutionID("e-1"))
    assert messages_in(bench.receive(rejected, BOB)) == []


def test_what_a_requester_has_accepted_goes_on_when_it_is_cut_off(bench):
    (bid,) = messages_in(bench.announce(job(inputs=0)))
    bench.receive(say.BidAccepted(job_id=JOB, execution_id=bid.execution_id))
    bench.handle(ev.RequesterCutOff(ALICE))
    assert str(bench.state(bid.execution_id)) == "Preparing"


def test_a_job_is_considered_while_it_is_inspected_and_no_longer(bench):
    """Later rounds of other jobs for which this node is not drawn never reach the machine."""
    assert not bench.machine.considers(ALICE, JOB)
    bench.announce(job(inputs=1))
    assert bench.machine.considers(ALICE, JOB)
    bench.receive(say.JobClosed(job_id=JOB))
    assert not bench.machine.considers(ALICE, JOB)


DIVIDED = small_job(Count=8, Deal={"Replicas": 1})


def bids(actions):
    return [each.message for each in actions if isinstance(getattr(each, "message", None), say.Bid)]


def test_a_node_bids_on_a_divided_job_as_often_as_is_wanted_and_there_is_room():
    bench = ComputeBench(cpu=2)
    placed = bids(bench.announce(DIVIDED, bids_each=3))
    assert [(bid.execution_id, bid.more) for bid in placed] == [("e-1", 2), ("e-2", 1), ("e-3", 0)]
    assert bench.machine.capacity.available.cpu == 0.5


def test_a_node_that_runs_a_partition_bids_on_others_and_not_while_it_has_a_bid():
    bench = ComputeBench(cpu=2)
    bench.announce(DIVIDED, bids_each=1)
    assert bids(bench.announce(DIVIDED, bids_each=1, round=2)) == []
    bench.receive(message_about(say.BidAccepted, partition=4))
    assert bench.machine.executions[FIRST].partition == 4
    assert [bid.execution_id for bid in bids(bench.announce(DIVIDED, bids_each=1, round=3))] == ["e-2"]


def test_a_node_without_room_for_all_partitions_bids_again_when_it_has_some():
    bench = ComputeBench(cpu=0.5)
    assert len(bids(bench.announce(DIVIDED, bids_each=3))) == 1
    bench.receive(message_about(say.BidAccepted))
    actions = bench.handle(ev.StepFailed(FIRST, "broken", permanent=False))
    assert [(bid.late, bid.execution_id) for bid in bids(actions)] == [(True, "e-2")]
    bench.receive(message_about(say.BidAccepted, "e-2"))
    actions = bench.handle(ev.StepFailed(ExecutionID("e-2"), "broken", permanent=False))
    assert [bid.execution_id for bid in bids(actions)] == ["e-3"]


def test_a_bid_on_a_divided_job_that_is_rejected_is_not_followed_by_another():
    bench = ComputeBench(cpu=0.5)
    bench.announce(DIVIDED, bids_each=3)
    assert bids(bench.receive(message_about(say.BidRejected))) == []


def test_the_bids_of_many_nodes_on_an_ops_job_are_spread():
    bench = ComputeBench()
    assert bids(bench.announce(small_job(Type="ops"), eligible=400)) == []
    assert bids(bench.wait(0.99)) == []
    assert len(bids(bench.wait(0.02))) == 1  # half of 2 s, by the bench's generator
