"""Jobs for which any of many connected nodes will do: a few of these alone are asked."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.pace import FIRST_WINDOW
from bacalhau_p2p.requester.rounds import MAX_ANSWERING_NODES
from tests.support.machines.requester_bench import JOB, ROOM, RequesterBench, S, announced, job, sent

MANY = tuple(PeerID(f"node-{number}") for number in range(12))
INPUTS = {"InputSources": [{"Target": "/in", "Source": {"Type": "data"}}]}


def connected(bench: RequesterBench, nodes: int) -> RequesterBench:
    """The requester knows MANY, and is connected to so many of them."""
    bench.add_nodes(*MANY)
    for node in MANY[:nodes]:
        bench.handle(ev.NodeConnected(node))
    return bench


def asked(actions: list[ev.Action], kind: str = "job_announced") -> set[PeerID]:
    return {node for node, said in sent(actions) if said == kind}


def decline(bench: RequesterBench, node: PeerID, *, busy: bool = False) -> list[ev.Action]:
    return bench.receive(node, say.BidDeclined(job_id=JOB, round=1, reason="is busy", busy=busy))


def test_where_many_nodes_are_connected_some_of_them_alone_are_asked(bench):
    actions = connected(bench, 8).submit(job())
    assert announced(actions) == []
    assert len(asked(actions)) == 5
    assert asked(actions) < set(MANY[:8])
    said = next(each.message for each in actions if isinstance(each, ev.Send))
    assert (said.chance, said.eligible, said.answers_wanted, said.round) == (1.0, 12, True, 1)


def test_the_best_of_their_bids_is_accepted_and_nobody_else_hears_of_the_job(bench):
    first, second, third, *_ = sorted(asked(connected(bench, 12).submit(job())))
    bench.bid(first, load=0.5)
    bench.bid(second, load=0.1)
    actions = bench.bid(third, load=0.9)
    assert set(sent(actions)) == {
        (second, "bid_accepted"),
        (first, "bid_rejected"),
        (third, "bid_rejected"),
    }
    assert not any(isinstance(action, ev.Broadcast) for action in actions)


@pytest.mark.parametrize("nodes", [4, 0])
def test_where_few_nodes_are_connected_the_job_is_broadcast(bench, nodes):
    actions = connected(bench, nodes).submit(job())
    assert len(announced(actions)) == 1
    assert asked(actions) == set()


def test_the_requester_itself_is_asked_like_a_connected_node(bench):
    bench.add_nodes(PeerID("me"))
    assert len(asked(connected(bench, 4).submit(job()))) == 5


def test_a_node_that_is_not_connected_any_more_is_neither_asked_nor_waited_for(bench):
    connected(bench, 6).handle(ev.NodeDisconnected(MANY[0]))
    five = asked(bench.submit(job()))
    assert five == set(MANY[1:6])
    bench.handle(ev.NodeDisconnected(MANY[1]))
    for node in MANY[2:5]:
        decline(bench, node)
    assert sent(bench.bid(MANY[5])) == [(MANY[5], "bid_accepted")]


def test_when_they_do_not_want_the_job_many_are_asked_by_broadcast_at_once(bench):
    for node in asked(connected(bench, 12).submit(job())):
        decline(bench, node)
    (said,) = announced(bench.wait(0))
    assert (said.round, said.chance) == (2, 1.0)


def test_when_they_are_silent_many_are_asked_by_broadcast_after_the_window(bench):
    connected(bench, 12).submit(job())
    assert announced(bench.wait(FIRST_WINDOW / 2)) == []
    assert [said.round for said in announced(bench.wait(2 * FIRST_WINDOW))] == [2]


def test_those_that_had_no_room_are_told_that_the_job_is_placed_and_nobody_else_is(bench):
    first, second, third, fourth, fifth = asked(connected(bench, 12).submit(job()))
    decline(bench, fifth, busy=True)
    actions = [*bench.bid(first), *bench.bid(second), *bench.bid(third)]
    assert fifth in asked(actions, "job_closed") <= {first, second, third, fourth, fifth}
    assert not any(isinstance(action, ev.Broadcast) for action in actions)


def test_a_job_that_is_cancelled_is_closed_for_those_that_were_asked(bench):
    five = asked(connected(bench, 12).submit(job()))
    actions = bench.handle(ev.CancelRequested(JOB, "changed my mind"))
    assert asked(actions, "job_closed") == five
    assert not any(isinstance(action, ev.Broadcast) for action in actions)


@pytest.mark.parametrize(
    "spec",
    [
        job(Tasks=[{"Engine": {"Type": "noop"}, **INPUTS}]),
        job(2, verifier="deterministic"),
    ],
    ids=["inputs", "results that are compared"],
)
def test_a_job_for_which_it_matters_who_is_asked_is_broadcast(bench, spec):
    compute = ComputeInfo(
        engines=("noop",), storage_sources=("data",), publishers=("ipfs",), max_capacity=ROOM
    )
    for node in MANY:
        bench.handle(ev.NodeInfoReceived(NodeInfo(id=node, compute=compute)))
        bench.handle(ev.NodeConnected(node))
    assert len(announced(bench.submit(spec))) == 1


def test_a_later_round_is_broadcast(bench):
    """An execution has failed: others than the neighbours may do better."""
    first, second, third, *_ = sorted(asked(connected(bench, 12).submit(job())))
    for node in (first, second, third):
        bench.bid(node)
    (chosen,) = [node for node, state in bench.states().items() if state == S.BID_ACCEPTED]
    actions = [*bench.fail(chosen), *bench.wait(30)]
    assert {said.round for said in announced(actions)} >= {2}
    assert asked(actions) == set()


def test_those_that_are_asked_answer_in_any_case_however_many_nodes_there_are(bench):
    """Else each round would have to be closed, and would wait for nodes that have no room."""
    bench.add_nodes(*(PeerID(f"other-{number}") for number in range(2 * MAX_ANSWERING_NODES)))
    actions = connected(bench, 12).submit(job())
    said = next(each.message for each in actions if isinstance(each, ev.Send))
    assert said.answers_wanted
    for node in sorted(asked(actions)):
        actions = decline(bench, node)
    assert len(announced([*actions, *bench.wait(0)])) == 1
