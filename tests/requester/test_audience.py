"""How many nodes are asked for bids on a job, whatever the requester knows of the network."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol.draw import lot
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.requester.audience import (
    MOST_ASKED_DIRECTLY,
    MOST_UNKNOWN,
    WIDENING,
    Audience,
    enough_bids,
    nodes_asked,
    nodes_asked_directly,
)

EVERYBODY = frozenset(PeerID(f"node-{number}") for number in range(1000))
JOBS = [JobID(f"j-{number}") for number in range(200)]


def some(number: int) -> frozenset[PeerID]:
    return frozenset(PeerID(f"node-{each}") for each in range(number))


def drawn(job: JobID, chance: float) -> set[PeerID]:
    return {node for node in EVERYBODY if lot(job, node) < chance}


def test_bids_to_choose_from_grow_with_the_slots_but_slower():
    slots = (1, 2, 3, 4, 10)
    assert [enough_bids(number, 0, inputs=True) for number in slots] == [3, 4, 5, 7, 14]
    assert [enough_bids(number, 0, inputs=False) for number in slots] == [2, 3, 4, 6, 13]
    assert enough_bids(1, 20, inputs=False) == 20


def test_more_nodes_are_asked_than_bids_are_needed_and_many_more_after_a_round_with_too_few():
    assert [nodes_asked(bids, 0) for bids in (3, 5, 14)] == [8, 12, 25]
    assert nodes_asked(3, 1) == 8 * WIDENING


def test_exactly_as_many_of_the_nodes_that_are_known_are_asked():
    audience = Audience()
    for job in JOBS:
        asked = audience.ask(job, EVERYBODY, 8)
        assert len(asked.nodes) == 8
        assert asked.nodes == drawn(job, asked.chance)
        assert (asked.others, asked.eligible) == (0, 1000)


def test_in_a_small_network_everybody_is_asked():
    asked = Audience().ask(JOBS[0], some(8), 8)
    assert (asked.chance, asked.nodes, asked.eligible) == (1.0, some(8), 8)


def test_a_requester_that_knows_nobody_asks_everybody():
    assert Audience().ask(JOBS[0], frozenset(), 8).chance == 1.0


def test_nodes_that_were_tried_do_not_count():
    audience = Audience()
    first = audience.ask(JOBS[0], EVERYBODY, 8)
    again = audience.ask(JOBS[0], EVERYBODY, 8, tried=first.nodes)
    assert len(again.nodes - first.nodes) == 8
    assert audience.ask(JOBS[0], some(10), 8, tried=some(5)).chance == 1.0


def test_a_requester_learns_from_the_answers_how_many_nodes_it_does_not_know():
    """It knows 100 of 1,000."""
    audience, known = Audience(), some(100)
    first = [len(drawn(job, audience.ask(job, known, 8).chance)) for job in JOBS]
    assert sum(first) / len(first) > 60
    for job in JOBS[:20]:
        for node in drawn(job, audience.ask(job, known, 8).chance):
            audience.answered(known=node in known)
    asked = [len(drawn(job, audience.ask(job, known, 8).chance)) for job in JOBS[20:]]
    assert 5 < sum(asked) / len(asked) < 14
    assert audience.ask(JOBS[0], known, 8).eligible == pytest.approx(1000, rel=0.4)


def test_a_requester_that_comes_to_know_them_all_asks_no_fewer_nodes():
    audience = Audience()
    for known in [False] * 100 + [True] * 200:
        audience.answered(known=known)
    assert len(audience.ask(JOBS[0], EVERYBODY, 8).nodes) == 8


def test_strangers_that_answer_without_end_do_not_keep_known_nodes_from_being_asked():
    audience = Audience()
    for _ in range(10_000):
        audience.answered(known=False)
    chances = [audience.ask(job, EVERYBODY, 8).chance for job in JOBS]
    assert sum(chances) / len(chances) == pytest.approx(8 / 1000 / MOST_UNKNOWN, rel=0.3)
    assert len(audience.ask(JOBS[0], EVERYBODY, nodes_asked(3, 2)).nodes) >= 8


def test_of_enough_connected_nodes_those_with_the_lowest_lots_are_asked_alone():
    audience = Audience()
    for job in JOBS:
        drawn_for = audience.ask(job, EVERYBODY, 8)
        asked = audience.ask_directly(job, drawn_for, some(40), 3)
        assert (asked.directly, asked.everybody, asked.others, asked.eligible) == (True, False, 0, 1000)
        assert asked.nodes == set(sorted(some(40), key=lambda node: lot(job, node))[:4])
        assert asked.nodes == {node for node in EVERYBODY if asked.may_bid(job, node)}


def test_work_spreads_over_all_connected_nodes():
    audience = Audience()
    asked = [audience.ask_directly(job, audience.ask(job, EVERYBODY, 8), some(40), 3).nodes for job in JOBS]
    times = [sum(node in nodes for nodes in asked) for node in some(40)]
    assert sum(times) == 4 * len(JOBS)
    assert min(times) >= 8  # of 20


def test_everybody_is_asked_as_before_where_few_nodes_are_connected_or_few_there():
    audience = Audience()
    drawn_for = audience.ask(JOBS[0], EVERYBODY, 8)
    assert audience.ask_directly(JOBS[0], drawn_for, some(3), 3) is drawn_for
    everybody = audience.ask(JOBS[0], some(8), 8)
    assert audience.ask_directly(JOBS[0], everybody, some(7), 3) is everybody


def test_few_are_asked_directly_if_all_of_them_are_connected():
    audience = Audience()
    everybody = audience.ask(JOBS[0], some(8), 8)
    asked = audience.ask_directly(JOBS[0], everybody, some(12), 3)
    assert (asked.directly, asked.nodes, asked.eligible) == (True, some(8), 8)
    for _ in range(100):
        audience.answered(known=False)
    everybody = audience.ask(JOBS[0], some(2), 80)
    assert audience.ask_directly(JOBS[0], everybody, some(2), 3) is everybody, "there are others, unknown"


def test_a_crowd_is_asked_by_broadcast_even_if_all_of_it_is_connected():
    audience = Audience()
    everybody = audience.ask(JOBS[0], some(MOST_ASKED_DIRECTLY + 1), 100)
    assert not audience.ask_directly(JOBS[0], everybody, some(100), 80).directly


def test_however_many_have_the_inputs_some_are_drawn_by_lot():
    audience = Audience()
    preferred = sorted(some(40))[:20]
    for job in JOBS:
        drawn_for = audience.ask(job, EVERYBODY, 8)
        asked = audience.ask_directly(job, drawn_for, some(40), 3, preferred=preferred)
        others = some(40) - set(preferred[:3])
        assert asked.nodes == {*preferred[:3], *sorted(others, key=lambda node: lot(job, node))[:1]}
        far = audience.ask_directly(job, drawn_for, some(40), 3, preferred=[PeerID("far")])
        assert far.nodes == set(sorted(some(40), key=lambda node: lot(job, node))[:4])


def test_fewer_nodes_are_asked_where_each_is_connected():
    assert [nodes_asked_directly(bids) for bids in (2, 3, 5, 14)] == [3, 4, 7, 18]
