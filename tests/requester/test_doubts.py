from __future__ import annotations

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.requester.doubts import DOUBTED_FOR, LONGEST_DOUBT, MAX_DOUBTED, Doubts
from tests.support.machines.requester_bench import A, B, C


def test_a_node_that_does_not_answer_is_not_relied_on_for_a_while_and_longer_each_time():
    doubts = Doubts()
    doubts.note([A, B], now=0)
    assert doubts.among({A, C}, now=DOUBTED_FOR / 2) == {A}
    assert doubts.among({A, C}, now=DOUBTED_FOR) == set()
    doubts.note([A], now=100)
    assert doubts.among({A, B}, now=100 + 1.5 * DOUBTED_FOR) == {A}
    for _ in range(20):
        doubts.note([A], now=1000)
    assert doubts.among({A}, now=1000 + LONGEST_DOUBT - 1) == {A}
    assert doubts.among({A}, now=1000 + LONGEST_DOUBT) == set()


def test_who_answers_is_relied_on_again():
    doubts = Doubts()
    doubts.note([A, B], now=0)
    doubts.heard(A)
    doubts.heard(C)
    assert doubts.among({A, B, C}, now=1) == {B}


def test_invented_nodes_take_no_memory():
    doubts = Doubts()
    for number in range(2 * MAX_DOUBTED):
        doubts.note([PeerID(f"node-{number}")], now=number)
    assert len(doubts) == MAX_DOUBTED
