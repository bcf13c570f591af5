"""What is announced of a job; `test_slots` and `test_ops_nodes` have the terms of each kind of job."""

from __future__ import annotations

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.requester import events as ev
from tests.support.machines.compute_bench import large_job
from tests.support.machines.requester_bench import A, announced, job


def test_an_announcement_has_the_terms_of_its_round(bench):
    bench.add_nodes(A)
    (first,) = announced(bench.submit(job(2)))
    assert (first.round, first.bids_wanted, first.eligible, first.answers_wanted) == (1, 3, 1, True)
    assert first.deadline == 3600.0
    second = announced(bench.wait(2))[0]
    assert second.round == 2


def test_a_large_spec_is_announced_by_its_outline(bench):
    actions = bench.submit(large_job(50_000))
    (message,) = [each.message for each in actions if isinstance(each, ev.Broadcast)]
    assert isinstance(message, say.JobOutlined)


def test_no_node_is_asked_for_more_bids_than_a_message_may_say(bench):
    bench.add_nodes(A)
    (message,) = announced(bench.submit(job(500, Deal={"Replicas": 1})))
    assert message.bids_each == say.MAX_BIDS_EACH
