"""The specs of large jobs: to whom they are given, and how often."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.draw import is_drawn
from bacalhau_p2p.bprotocol.outlines import large_spec
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.spec_delivery import MAX_DELIVERIES_TO_NODE, MAX_DELIVERIES_TO_OTHERS
from tests.support.machines.compute_bench import large_job
from tests.support.machines.requester_bench import JOB, A, B, RequesterBench, execution_id, restarted, sent

SPEC = large_job(100_000)
LARGE = large_spec(SPEC)
WANTED = say.SpecWanted(job_id=JOB, spec_cid=LARGE.outline.spec_cid)
DELIVERED = say.SpecDelivered(job_id=JOB, spec=LARGE.encoded)


def outlined(actions: list[ev.Action]) -> list[say.JobOutlined]:
    broadcasts = [action.message for action in actions if isinstance(action, ev.Broadcast)]
    return [message for message in broadcasts if isinstance(message, say.JobOutlined)]


@pytest.fixture
def bench(bench: RequesterBench) -> RequesterBench:
    """A requester that knows two nodes and has announced the job."""
    bench.add_nodes(A, B)
    bench.submit(SPEC)
    return bench


def test_a_large_job_is_announced_by_its_outline(bench):
    (announcement,) = outlined(bench.done)
    assert announcement.outline == LARGE.outline
    assert (announcement.round, announcement.eligible, announcement.answers_wanted) == (1, 2, True)


def test_a_node_that_asks_is_given_the_spec(bench):
    (given,) = bench.receive(A, WANTED)
    assert (given.to, given.message) == (A, DELIVERED)


def test_after_a_restart_the_requester_announces_and_delivers_the_same_spec(bench):
    again = restarted(bench, known=(A, B))
    (announcement,) = outlined(again.wait(0) + again.done)[-1:]
    assert announcement.outline == LARGE.outline
    assert sent(again.receive(A, WANTED)) == [(A, "spec_delivered")]


@pytest.mark.parametrize(
    "wanted",
    [
        WANTED.model_copy(update={"spec_cid": "bafkqaaa"}),
        WANTED.model_copy(update={"job_id": "j-unknown"}),
    ],
)
def test_nothing_is_given_of_another_job_or_spec(bench, wanted):
    assert bench.receive(A, wanted) == []


def test_who_asks_too_late_is_told_that_no_bids_are_wanted(bench):
    bench.bid(A)
    bench.bid(B)
    too_late = say.SpecDelivered(job_id=JOB, spec=b"")
    assert [action.message for action in bench.receive(B, WANTED)] == [too_late]
    bench.handle(ev.CancelRequested(JOB, "enough"))
    assert [action.message for action in bench.receive(B, WANTED)] == [too_late]


def test_a_small_job_has_no_spec_to_ask_for(bench):
    other = RequesterBench()
    other.submit(large_job(10))
    assert other.receive(A, WANTED) == []


def test_a_node_is_given_it_a_few_times_in_each_round(bench):
    for _ in range(MAX_DELIVERIES_TO_NODE):
        assert sent(bench.receive(A, WANTED)) == [(A, "spec_delivered")]
    assert bench.receive(A, WANTED) == []
    assert sent(bench.receive(B, WANTED)) == [(B, "spec_delivered")]
    first = bench.machine.jobs[JOB].round.number
    while bench.machine.jobs[JOB].round.number == first:
        bench.wait(0.1)
    assert sent(bench.receive(A, WANTED)) == [(A, "spec_delivered")]


def test_strangers_together_are_given_it_so_often_and_nodes_that_are_known_all_the_same(bench):
    given = 0
    for number in range(MAX_DELIVERIES_TO_OTHERS + 10):
        given += len(bench.receive(PeerID(f"stranger-{number}"), WANTED))
    assert given == MAX_DELIVERIES_TO_OTHERS
    assert sent(bench.receive(A, WANTED)) == [(A, "spec_delivered")]


def test_who_may_not_bid_is_given_nothing():
    bench = RequesterBench()
    nodes = [PeerID(f"n-{number}") for number in range(100)]
    bench.add_nodes(*nodes)
    (announcement,) = outlined(bench.submit(SPEC))
    for node in nodes:
        assert bool(bench.receive(node, WANTED)) == is_drawn(announcement, node)


def test_nodes_may_take_their_time_to_fetch_it():
    bench = RequesterBench()
    nodes = [PeerID(f"n-{number}") for number in range(100)]
    bench.add_nodes(*nodes)
    bench.submit(SPEC)
    assert outlined(bench.wait(3)) == []
    bid = say.Bid(job_id=JOB, execution_id=execution_id(A), reserved_for=3.0)
    assert sent(bench.receive(nodes[0], bid)) == [(nodes[0], "bid_accepted")]


def test_what_is_kept_of_a_job_that_has_ended_is_small(bench):
    bench.receive(A, WANTED)
    bench.handle(ev.CancelRequested(JOB, "enough"))
    entry = bench.machine.jobs[JOB]
    assert (entry.large_spec, entry.round.given) == (None, {})
