"""Large jobs: who asks for their specs, how often, and what becomes of them. `announcements` has the rest."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.outlines import large_spec, with_spec
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.bidding import NOT_DRAWN, Assessment
from bacalhau_p2p.compute.spec_requests import ASK_AGAIN_AFTER, MAX_REQUESTS, MAX_REQUESTS_TO_ONE
from bacalhau_p2p.model.base import JobID, PeerID
from tests.support.machines.compute_bench import ALICE, JOB, ComputeBench, large_job, message_about
from tests.support.machines.machine_bench import messages_in

SPEC = large_job(50_000)
BOB = PeerID("bob")


def outlined(job_id: str = JOB, spec=SPEC, **terms: object) -> say.JobOutlined:
    values = {"bids_wanted": 3, "round": 1, "deadline": 3600.0, "answers_wanted": True, **terms}
    return say.JobOutlined(job_id=JobID(job_id), outline=large_spec(spec).outline, **values)


class Bench(ComputeBench):
    def outline(
        self,
        message: say.JobOutlined | None = None,
        *,
        author: PeerID = ALICE,
        assessment: Assessment = Assessment(),  # noqa: B008 - frozen
    ) -> list[say.Message]:
        event = ev.OutlineReceived(author, message or outlined(), assessment)
        return messages_in(self.handle(event))

    def deliver(self, message: say.JobOutlined | None = None, spec=SPEC) -> list[ev.Action]:
        announcement = with_spec(message or outlined(), spec)
        inspected = bool(spec.task.input_sources)
        event = ev.SpecReceived(ALICE, announcement, Assessment(needs_inspection=inspected))
        return self.handle(event)


@pytest.fixture
def bench():
    return Bench()


def kinds(messages: list[say.Message]) -> list[str]:
    return [message.kind for message in messages]


def test_a_node_that_may_bid_asks_for_the_spec_and_bids_when_it_is_here(bench):
    (wanted,) = bench.outline()
    assert wanted == say.SpecWanted(job_id=JOB, spec_cid=large_spec(SPEC).outline.spec_cid)
    assert kinds(messages_in(bench.deliver())) == ["bid"]
    assert bench.machine.executions["e-1"].spec == SPEC
    assert bench.wait(2) == []


def test_a_node_that_is_not_drawn_does_not_ask(bench):
    assert bench.outline(assessment=NOT_DRAWN) == []
    assert bench.machine.next_deadline() is None


@pytest.mark.parametrize(
    ("assessment", "spec", "reason", "busy"),
    [
        (Assessment(ineligibility="has no docker engine"), SPEC, "has no docker engine", False),
        (Assessment(shortage="has almost no free disk"), SPEC, "has almost no free disk", True),
        (Assessment(), large_job(5000, cpu="64"), "is too small for the requested resources: CPU", False),
    ],
)
def test_a_node_that_cannot_run_the_job_declines_without_the_spec(bench, assessment, spec, reason, busy):
    (declined,) = bench.outline(outlined(spec=spec), assessment=assessment)
    assert (declined.kind, declined.reason, declined.busy) == ("bid_declined", reason, busy)
    assert bench.machine.next_deadline() is None


def test_the_latest_round_is_answered(bench):
    bench.outline()
    later = outlined(round=2)
    assert bench.outline(later) == []
    assert bench.machine.awaited(ALICE, JOB) == later
    (bid,) = messages_in(bench.deliver(later))
    assert bid.round == 2


def test_another_outline_of_the_same_job_is_ignored(bench):
    bench.outline()
    assert bench.outline(outlined(spec=large_job(6000))) == []
    assert bench.machine.ignored == {"JobOutlined with another outline than before": 1}


def test_a_spec_that_does_not_come_is_asked_for_again_and_then_given_up(bench):
    bench.outline()
    actions = bench.wait(sum(ASK_AGAIN_AFTER) + 1)
    assert kinds(messages_in(actions)) == ["spec_wanted", "spec_wanted", "bid_declined"]
    (report,) = [action for action in actions if isinstance(action, ev.ReportUndelivered)]
    assert (report.requester, report.job_id) == (ALICE, JOB)
    assert bench.machine.next_deadline() is None


def test_a_requester_that_does_not_deliver_gets_no_bids_for_a_while_and_is_not_asked(bench):
    bench.outline()
    bench.wait(sum(ASK_AGAIN_AFTER))
    (declined,) = bench.outline(outlined("j-2"))
    assert declined.reason.startswith("does not bid for a while")
    assert kinds(bench.outline(outlined("j-2"), author=BOB)) == ["spec_wanted"]


def test_a_spec_that_is_not_the_one_that_was_announced_ends_it_at_once(bench):
    bench.outline()
    actions = bench.handle(ev.SpecRefused(ALICE, JOB, "the bytes are not those of the spec"))
    (declined,) = messages_in(actions)
    assert (declined.reason, declined.busy) == ("the bytes are not those of the spec", True)
    assert any(isinstance(action, ev.ReportUndelivered) for action in actions)
    assert bench.deliver() == []


def test_a_spec_that_was_not_asked_for_changes_nothing(bench):
    assert bench.deliver() == []
    assert bench.handle(ev.SpecRefused(BOB, JOB, "x")) == []
    assert bench.receive(say.SpecDelivered(job_id=JOB, spec=b"x")) == []
    assert bench.receive(say.SpecDelivered(job_id=JOB, spec=b"")) == []
    assert bench.machine.ignored == {
        "SpecReceived that was not asked for": 1,
        "SpecDelivered at a compute node": 1,
    }


@pytest.mark.parametrize(
    "end",
    [
        ev.MessageReceived(ALICE, say.JobClosed(job_id=JOB)),
        ev.MessageReceived(ALICE, say.SpecDelivered(job_id=JOB, spec=b"")),
        ev.RequesterCutOff(ALICE),
        ev.StopBidding(),
        ev.HandBack(),
    ],
)
def test_a_job_that_is_closed_or_a_node_that_stops_asks_no_more(bench, end):
    bench.outline()
    assert bench.handle(end) == []
    assert bench.wait(100) == []
    assert bench.deliver() == []


def test_a_large_job_for_which_there_is_no_room_gets_a_late_bid(bench):
    bench.announce(job_id="j-2")
    bench.announce(job_id="j-3")
    bench.outline()
    (declined,) = messages_in(bench.deliver())
    assert (declined.reason, declined.busy) == ("is busy", True)
    rejected = say.BidRejected(job_id=JobID("j-2"), execution_id="e-1")
    (bid,) = messages_in(bench.receive(rejected))
    assert (bid.kind, bid.job_id, bid.late) == ("bid", JOB, True)


def test_a_large_job_runs_on_after_a_restart_of_its_node(bench):
    bench.outline()
    bench.deliver()
    (stored,) = [a.record for a in bench.receive(message_about(say.BidAccepted)) if isinstance(a, ev.Store)]
    again = Bench()
    again.handle(ev.Resumed(stored))
    assert again.machine.executions["e-1"].spec == SPEC


def test_the_specs_that_one_requester_has_a_node_wait_for_are_bounded_and_so_are_all(bench):
    asked = [kinds(bench.outline(outlined(f"j-{number}"))) for number in range(MAX_REQUESTS_TO_ONE + 5)]
    assert asked.count(["spec_wanted"]) == MAX_REQUESTS_TO_ONE
    for number in range(MAX_REQUESTS):
        bench.outline(author=PeerID(f"requester-{number}"))
    assert len([each for each in bench.done if isinstance(each, ev.Send)]) == MAX_REQUESTS
