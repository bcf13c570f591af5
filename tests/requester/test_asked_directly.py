"""Jobs that are offered to a few connected nodes before anybody else hears of them."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.holders import ASK_AGAIN_AFTER
from bacalhau_p2p.requester.invitations import MAX_ANSWERING_NODES
from bacalhau_p2p.requester.pace import FIRST_WINDOW
from bacalhau_p2p.requester.rounds import INSPECTION_PATIENCE
from tests.support.machines.requester_bench import JOB, ROOM, RequesterBench, S, announced, job, sent

MANY = tuple(PeerID(f"node-{number}") for number in range(12))
DATA = {"Type": "data", "Params": {"Name": "sea ice"}}
INLINE = {"Type": "inline", "Params": {"URL": "data:,x"}}


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
    assert len(asked(actions)) == 3
    assert asked(actions) < set(MANY[:8])
    said = next(each.message for each in actions if isinstance(each, ev.Send))
    assert (said.chance, said.eligible, said.answers_wanted, said.round) == (1.0, 12, True, 1)


def test_the_best_of_their_bids_is_accepted_and_nobody_else_hears_of_the_job(bench):
    first, second, third = sorted(asked(connected(bench, 12).submit(job())))
    bench.bid(first, load=0.5)
    actions = bench.bid(second, load=0.1)
    assert set(sent(actions)) == {(second, "bid_accepted"), (first, "bid_rejected")}
    actions += bench.bid(third, load=0.0)
    assert sent(actions)[-1] == (third, "bid_rejected")
    assert not any(isinstance(action, ev.Broadcast) for action in actions)


@pytest.mark.parametrize("nodes", [2, 0])
def test_where_few_nodes_are_connected_the_job_is_broadcast(bench, nodes):
    actions = connected(bench, nodes).submit(job())
    assert len(announced(actions)) == 1
    assert asked(actions) == set()


def test_the_requester_itself_is_asked_like_a_connected_node(bench):
    bench.add_nodes(PeerID("me"))
    assert len(asked(connected(bench, 2).submit(job()))) == 3


def test_a_node_that_is_not_connected_any_more_is_neither_asked_nor_waited_for(bench):
    connected(bench, 4).handle(ev.NodeDisconnected(MANY[0]))
    assert asked(bench.submit(job())) == set(MANY[1:4])
    bench.handle(ev.NodeDisconnected(MANY[1]))
    decline(bench, MANY[2])
    assert sent(bench.bid(MANY[3])) == [(MANY[3], "bid_accepted")]


def test_when_they_do_not_want_the_job_many_are_asked_by_broadcast_at_once(bench):
    for node in asked(connected(bench, 12).submit(job())):
        decline(bench, node)
    (said,) = announced(bench.wait(0))
    assert (said.round, said.chance) == (2, 1.0)


def test_when_they_are_silent_many_are_asked_by_broadcast_after_the_window(bench):
    connected(bench, 12).submit(job())
    assert announced(bench.wait(FIRST_WINDOW / 2)) == []
    assert [said.round for said in announced(bench.wait(2 * FIRST_WINDOW))] == [2]


def test_who_was_silent_is_not_asked_first_the_next_time_until_it_answers(bench):
    connected(bench, 12)
    first = asked(bench.handle(ev.Submitted(JobID("j-1"), job())))
    bench.wait(FIRST_WINDOW)
    for number in range(2, 12):
        nodes = asked(bench.handle(ev.Submitted(JobID(f"j-{number}"), job())))
        assert (len(nodes), nodes & first) == (3, set())
    one = min(first)
    bench.receive(one, say.BidDeclined(job_id=JobID("j-1"), round=1, reason="is slow"))
    chosen = [asked(bench.handle(ev.Submitted(JobID(f"j-{number}"), job()))) for number in range(12, 60)]
    assert {node for nodes in chosen for node in nodes} == {one} | (set(MANY) - first)


def test_nobody_waits_again_for_a_node_that_was_silent_where_there_are_few(bench):
    bench.add_nodes(*MANY[:2])
    for node in MANY[:2]:
        bench.handle(ev.NodeConnected(node))
    assert asked(bench.handle(ev.Submitted(JobID("j-1"), job()))) == set(MANY[:2])
    bench.wait(FIRST_WINDOW)
    assert asked(bench.submit(job())) == set(MANY[:2])
    assert sent(bench.bid(MANY[1])) == [(MANY[1], "bid_accepted")]


def test_a_node_that_inspects_the_inputs_of_a_job_is_not_silent(keepers):
    actions = submit(keepers, 1, DATA)
    first = asked(actions) - questions(actions)
    keepers.wait(FIRST_WINDOW)
    for seconds, expected in ((0, first), (INSPECTION_PATIENCE, set())):
        keepers.wait(seconds)
        chosen = set()
        for number in range(2, 40):
            actions = submit(keepers, f"{seconds}-{number}", DATA)
            chosen |= asked(actions) - questions(actions)
            keepers.handle(ev.CancelRequested(JobID(f"j-{seconds}-{number}"), ""))
        assert chosen & first == expected


def test_those_that_had_no_room_are_told_that_the_job_is_placed_and_nobody_else_is(bench):
    first, second, third = asked(connected(bench, 12).submit(job()))
    decline(bench, third, busy=True)
    actions = [*bench.bid(first), *bench.bid(second)]
    assert third in asked(actions, "job_closed") <= {first, second, third}
    assert not any(isinstance(action, ev.Broadcast) for action in actions)


def test_a_job_that_is_cancelled_is_closed_for_those_that_were_asked(bench):
    nodes = asked(connected(bench, 12).submit(job()))
    actions = bench.handle(ev.CancelRequested(JOB, "changed my mind"))
    assert asked(actions, "job_closed") == nodes
    assert not any(isinstance(action, ev.Broadcast) for action in actions)


@pytest.mark.parametrize("nodes", [3, 12])
def test_a_job_whose_results_are_compared_is_broadcast(bench, nodes):
    """They must not all come from nodes that chose to connect to the requester."""
    connected(bench, nodes)
    assert len(announced(bench.submit(job(2, verifier="deterministic")))) == 1


def test_where_all_that_could_run_it_are_connected_and_few_these_are_asked(bench):
    bench.add_nodes(*MANY[:3])
    for node in MANY[:3]:
        bench.handle(ev.NodeConnected(node))
    actions = bench.submit(job())
    assert (asked(actions), announced(actions)) == (set(MANY[:3]), [])
    told = [each.event.message for each in actions if isinstance(each, ev.Append)]
    assert told[-1] == "announced; round 1: 3 nodes could run it"


def test_when_each_of_them_has_declined_the_job_waits_as_if_everybody_had(bench):
    bench.add_nodes(*MANY[:3])
    for node in MANY[:3]:
        bench.handle(ev.NodeConnected(node))
    bench.submit(job())
    actions = [action for node in MANY[:3] for action in decline(bench, node, busy=True)]
    assert announced([*actions, *bench.wait(0.1)]) == []
    assert [said.round for said in announced(bench.wait(1))] == [2]
    actions = bench.receive(MANY[0], say.Bid(job_id=JOB, execution_id="e", reserved_for=3, late=True))
    assert sent(actions) == [(MANY[0], "bid_accepted"), (MANY[1], "job_closed"), (MANY[2], "job_closed")]


# --- inputs -------------------------------------------------------------------------------


def with_input(source: dict[str, object]) -> JobSpec:
    inputs = {"InputSources": [{"Target": "/in", "Source": source}]}
    return job(Tasks=[{"Engine": {"Type": "noop"}, **inputs}])


@pytest.fixture
def keepers(bench):
    """The requester is connected to 12 nodes that could fetch data."""
    compute = ComputeInfo(
        engines=("noop",), storage_sources=("data", "inline", "ipfs"), publishers=("ipfs",), max_capacity=ROOM
    )
    for node in MANY:
        bench.handle(ev.NodeInfoReceived(NodeInfo(id=node, compute=compute)))
        bench.handle(ev.NodeConnected(node))
    return bench


def submit(bench: RequesterBench, number: object, source: dict[str, object]) -> list[ev.Action]:
    return bench.handle(ev.Submitted(JobID(f"j-{number}"), with_input(source)))


def questions(actions: list[ev.Action]) -> set[PeerID]:
    """Who is asked for a bid only if it has the inputs."""
    return {
        each.to
        for each in actions
        if isinstance(each, ev.Send) and getattr(each.message, "only_if_local", False)
    }


def bid(bench: RequesterBench, number: int, node: PeerID, local: int) -> list[ev.Action]:
    message = say.Bid(
        job_id=JobID(f"j-{number}"),
        execution_id=ExecutionID(f"e-{number}-{node}"),
        reserved_for=3,
        input_bytes=10,
        local_input_bytes=local,
    )
    return bench.receive(node, message)


def test_of_a_job_with_inputs_some_are_asked_and_all_other_connected_nodes_if_they_have_these(keepers):
    actions = submit(keepers, 1, DATA)
    assert announced(actions) == []
    assert asked(actions) == set(MANY)
    assert len(questions(actions)) == len(MANY) - 4
    answers = {
        each.message.answers_wanted for each in actions if getattr(each, "to", "") in questions(actions)
    }
    assert answers == {False}


def test_a_node_that_has_the_inputs_is_chosen_among_those_that_were_asked(keepers):
    actions = submit(keepers, 1, DATA)
    holder = min(questions(actions))
    one, two, *_ = sorted(set(MANY) - questions(actions))
    bid(keepers, 1, one, local=0)
    bid(keepers, 1, holder, local=10)
    assert (holder, "bid_accepted") in sent(bid(keepers, 1, two, local=0))


def test_who_had_inputs_is_asked_first_the_next_time_and_nobody_is_questioned(keepers):
    holder = min(questions(submit(keepers, 1, DATA)))
    bid(keepers, 1, holder, local=10)
    for number in range(2, 10):
        actions = submit(keepers, number, DATA)
        assert holder in asked(actions)
        assert (len(asked(actions)), questions(actions)) == (4, set())


def test_who_was_accepted_for_its_inputs_and_is_lost_is_not_asked_first_any_more(keepers):
    holder = max(questions(submit(keepers, 1, DATA)))
    bid(keepers, 1, holder, local=10)
    keepers.wait(1)
    assert not questions(submit(keepers, 2, DATA))
    keepers.handle(ev.NodeDisconnected(holder))
    keepers.wait(100)
    keepers.handle(ev.NodeConnected(holder))
    assert questions(submit(keepers, 3, DATA))  # nobody is known to have them


def test_connected_nodes_are_asked_again_after_a_while_whether_they_have_inputs_that_none_had(keepers):
    assert questions(submit(keepers, 1, DATA))
    assert not questions(submit(keepers, 2, DATA))
    keepers.wait(ASK_AGAIN_AFTER)
    assert questions(submit(keepers, 3, DATA))


def test_data_within_the_job_is_near_to_everybody(keepers):
    actions = submit(keepers, 1, INLINE)
    assert (len(asked(actions)), questions(actions)) == (4, set())


def test_a_node_with_a_penalty_is_asked_first_only_where_too_few_others_are_connected(bench):
    for nodes in (8, 3):
        line = RequesterBench()
        asked_first = asked(connected(line, nodes).submit(job()))
        silent = min(asked_first)
        for node in sorted(asked_first):
            line.bid(node, load=float(node != silent))
        line.wait(30)
        assert silent in line.machine.penalties(line.now)
        asked_next = asked(line.handle(ev.Submitted(JobID("j-2"), job())))
        assert (len(asked_next), silent in asked_next) == (3, nodes == 3)


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
