"""Ops jobs: once on each node that matches when they are submitted, and how they end: `ops_nodes`."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.liveness import LOST_AFTER_SILENCE, LOST_WITHOUT_REPLACEMENT
from bacalhau_p2p.requester.ops_nodes import ASKED_AGAIN, GATHER_FOR, MAX_NODES, MAX_NODES_TOLD
from tests.support.machines.requester_bench import (
    JOB,
    A,
    B,
    C,
    D,
    S,
    announced,
    execution_id,
    heartbeat_of,
    job,
    restarted,
    sent,
)

OPS = job(Type="ops")


def result_on(bench, node):
    bench.propose(node, f"of {node}")
    slot = bench.machine.jobs[JOB].executions[execution_id(node)].slot
    verdict = ev.Verdict(accepted=frozenset({execution_id(node)}), rejected=frozenset())
    bench.handle(ev.Verified(JOB, verdict, slot))
    bench.publish(node, f"of {node}")


@pytest.fixture
def ops(bench):
    """An ops job that A, B and C have taken."""
    bench.add_nodes(A, B, C)
    bench.submit(OPS)
    for node in (A, B, C):
        bench.bid(node)
    return bench


def test_each_node_that_matches_is_asked_and_takes_the_job_at_once(bench):
    bench.add_nodes(A, B)
    bench.handle(ev.NodeInfoReceived(NodeInfo(id=C, compute=ComputeInfo(engines=("docker",)))))
    (message,) = announced(bench.submit(OPS))
    assert (message.chance, message.eligible) == (1.0, 2)
    assert sent(bench.bid(B)) == [(B, "bid_accepted")]
    assert sent(bench.bid(A)) == [(A, "bid_accepted")]
    assert bench.job.nodes == (A, B)


def test_a_job_is_done_when_each_node_has_a_result_of_its_own(ops):
    for node in (A, B):
        result_on(ops, node)
        assert ops.job.state is JobState.RUNNING
    result_on(ops, C)
    assert (ops.job.state, ops.job.message) == (JobState.COMPLETED, "done on 3 nodes")


def test_a_node_that_fails_is_not_replaced_and_the_job_tells_what_is_missing(ops):
    ops.add_nodes(D)
    ops.fail(B)
    assert announced(ops.wait(5)) == []
    result_on(ops, A)
    result_on(ops, C)
    assert ops.job.state is JobState.FAILED
    assert ops.job.message == "2 of 3 nodes gave a result; bob: no such image"
    assert ops.states() == {A: S.COMPLETED, B: S.FAILED, C: S.COMPLETED}


def test_the_job_tells_the_reasons_of_a_few_nodes(bench):
    nodes = [PeerID(f"node-{number:02}") for number in range(MAX_NODES_TOLD + 5)]
    bench.add_nodes(*nodes)
    bench.submit(OPS)
    for node in nodes:
        bench.bid(node)
        bench.fail(node)
    assert bench.job.message.startswith("0 of 15 nodes gave a result; node-00, node-01")
    assert bench.job.message.endswith("no such image; and 5 more")


def test_an_execution_is_lost_when_its_node_is_silent_though_no_other_node_could_run_it(ops):
    ops.wait(LOST_AFTER_SILENCE - 1)
    for node in (A, C):
        ops.receive(node, heartbeat_of(node))
    ops.wait(1.5)
    assert ops.states() == {A: S.BID_ACCEPTED, B: S.LOST, C: S.BID_ACCEPTED}


def test_a_broken_connection_alone_loses_nothing(ops):
    ops.handle(ev.NodeDisconnected(B))
    ops.wait(LOST_AFTER_SILENCE - 1)
    assert ops.states()[B] is S.BID_ACCEPTED


def test_a_node_that_joins_later_does_not_get_the_job(ops):
    ops.wait(GATHER_FOR + 1)
    ops.add_nodes(D)
    assert sent(ops.bid(D)) == [(D, "bid_rejected")]
    assert ops.job.nodes == (A, B, C)


def test_a_node_that_was_not_known_joins_while_the_first_answers_come(ops):
    assert sent(ops.bid(D)) == [(D, "bid_accepted")]
    assert ops.job.nodes == (A, B, C, D)


def test_no_node_has_the_job_twice(ops):
    result_on(ops, B)
    assert sent(ops.bid(B, attempt=2)) == [(B, "bid_rejected")]


def test_a_busy_node_is_asked_again_alone_and_takes_the_job_when_it_has_room(bench):
    bench.add_nodes(A, B)
    bench.submit(OPS)
    bench.bid(A)
    bench.receive(B, say.BidDeclined(job_id=JOB, round=1, reason="is busy", busy=True))
    assert {action.to for action in bench.wait(5) if isinstance(action, ev.Send)} == {B}
    assert (B, "bid_accepted") in sent(bench.bid(B))


def test_a_busy_node_is_asked_again_after_a_while_and_not_at_once(bench):
    bench.add_nodes(A)
    bench.submit(OPS)
    asked = 0
    for _ in range(100):  # 10 seconds
        asked += len([action for action in bench.wait(0.1) if isinstance(action, ev.Send)])
        number = bench.machine.jobs[JOB].round.number
        bench.receive(A, say.BidDeclined(job_id=JOB, round=number, reason="is busy", busy=True))
    assert 2 <= asked <= 6


def test_a_job_of_which_one_node_is_gone_and_the_others_are_busy_goes_on_waiting(bench):
    bench.add_nodes(A, B)
    bench.submit(OPS)
    bench.receive(B, say.BidDeclined(job_id=JOB, round=1, reason="is busy", busy=True))
    bench.wait(1)
    bench.handle(ev.NodeDisconnected(A))
    bench.wait(LOST_AFTER_SILENCE + 60)
    assert bench.states()[A] is S.FAILED
    assert bench.job.state is JobState.QUEUED
    assert bench.job.message == "waiting for a node: bob is busy"


def test_a_node_that_finds_no_room_within_the_queue_timeout_ends_with_its_reason(bench):
    bench.add_nodes(A, B)
    bench.submit(job(Type="ops", Tasks=[{"Engine": {"Type": "noop"}, "Timeouts": {"QueueTimeout": 30}}]))
    bench.bid(A)
    result_on(bench, A)
    bench.receive(B, say.BidDeclined(job_id=JOB, round=1, reason="is busy", busy=True))
    bench.wait(30)
    assert bench.job.state is JobState.FAILED
    assert bench.job.message == (
        "1 of 2 nodes gave a result; "
        "bob: the node did not take the job within the queue timeout of 30 s: is busy"
    )


def test_a_node_that_dies_before_it_takes_the_job_is_given_up(bench):
    bench.add_nodes(A, B)
    bench.submit(OPS)
    bench.bid(A)
    result_on(bench, A)
    bench.handle(ev.NodeDisconnected(B))
    bench.wait(LOST_AFTER_SILENCE + 1)
    assert bench.states()[B] is S.FAILED
    assert bench.job.message.endswith("bob: lost contact with the node before it took the job")


def test_a_node_that_leaves_is_not_waited_for_up_to_the_queue_timeout(bench):
    bench.add_nodes(A, B)
    bench.submit(OPS)
    bench.bid(A)
    result_on(bench, A)
    bench.handle(ev.NodeWentStale(B))
    bench.wait(LOST_WITHOUT_REPLACEMENT + 1)
    assert bench.job.message.endswith("bob: the node left before it took the job")


def test_a_node_whose_info_comes_again_after_its_connection_broke_is_given_up_as_soon_as_any(bench):
    """The info came through another node: until then the job waited longer, as for a node that it forgot."""
    bench.add_nodes(A, B)
    bench.submit(OPS)
    bench.bid(A)
    result_on(bench, A)
    info = bench.machine._liveness.nodes[B]
    for event in (ev.NodeWentStale(B), ev.NodeDisconnected(B)):
        bench.handle(event)
    bench.wait(1)
    bench.handle(ev.NodeInfoReceived(info))
    bench.wait(LOST_AFTER_SILENCE)
    assert bench.states()[B] is S.FAILED


def test_what_a_node_hands_back_or_never_began_it_may_begin_again(ops):
    for fields in ({"drained": True}, {"unknown": True}):
        attempt = len([e for e in ops.machine.jobs[JOB].executions.values() if e.node_id == B])
        failed = say.ExecutionFailed(job_id=JOB, execution_id=execution_id(B, attempt), reason="x", **fields)
        ops.receive(B, failed)
        ops.wait(1)
        assert sent(ops.bid(B, attempt=attempt + 1)) == [(B, "bid_accepted")]


def test_more_nodes_than_a_job_may_have_are_a_fault(bench):
    bench.add_nodes(*(PeerID(f"node-{number}") for number in range(MAX_NODES + 1)))
    bench.submit(OPS)
    assert bench.job.state is JobState.FAILED
    assert bench.job.message == ("1,001 nodes match, and an ops job runs on at most 1,000; add Constraints")


def test_a_job_waits_for_the_first_node_that_matches_and_fails_without_any(bench):
    bench.submit(OPS)
    bench.wait(100)
    assert bench.job.state is JobState.QUEUED
    bench.wait(300)
    assert (bench.job.state, bench.job.message) == (
        JobState.FAILED,
        "no node matched within the queue timeout of 300 s",
    )


def test_the_first_node_that_appears_takes_a_job_that_no_node_matched(bench):
    bench.submit(OPS)
    bench.wait(10)
    bench.add_nodes(A)
    assert sent(bench.bid(A)) == [(A, "bid_accepted")]
    assert bench.job.nodes == (A,)


def test_many_nodes_that_have_not_taken_the_job_are_asked_in_turns(bench):
    nodes = [PeerID(f"node-{number:03}") for number in range(2 * ASKED_AGAIN)]
    bench.add_nodes(*nodes)
    bench.submit(OPS)
    asked = [action.to for action in bench.wait(60) if isinstance(action, ev.Send)]
    assert asked[: len(nodes)] == nodes


def test_a_restarted_requester_knows_which_nodes_have_ended_and_which_have_not(ops):
    ops.fail(B)
    result_on(ops, A)
    again = restarted(ops)
    assert [slot.node for slot in again.machine.jobs[JOB].open_slots] == []
    assert sent(again.bid(B, attempt=2)) == [(B, "bid_rejected")]
    result_on(again, C)
    assert again.job.message == "2 of 3 nodes gave a result; bob: no such image"
