"""The draw: the same for everybody, and even."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol.draw import CROWD, LONGEST_SPREAD, is_drawn, lot, spread
from bacalhau_p2p.bprotocol.messages import JobAnnounced
from bacalhau_p2p.model.base import JobID, PeerID
from tests.support.machines.compute_bench import SMALL

NODES = [PeerID(f"node-{number}") for number in range(1000)]


def announced(chance: float, job_id: str = "j-1", **more: int) -> JobAnnounced:
    terms = {"bids_wanted": 3, "round": 1, **more}
    return JobAnnounced(job_id=JobID(job_id), spec=SMALL, chance=chance, deadline=60.0, **terms)


def test_a_lot_is_what_the_specification_says():
    """`sha256("j-1\\nnode-0")` begins with these 8 bytes."""
    assert lot(JobID("j-1"), PeerID("node-0")) == (0xEBF4DE6757453C8A >> 11) / 2**53


def test_about_as_many_nodes_are_drawn_as_are_asked():
    for job in ("j-1", "j-2", "j-3"):
        assert 70 < sum(is_drawn(announced(0.1, job), node) for node in NODES) < 130


def test_everybody_is_drawn_unless_the_announcement_says_otherwise():
    assert all(is_drawn(announced(1.0), node) for node in NODES)


def test_a_wider_draw_reaches_those_that_a_narrower_one_reached():
    narrow = {node for node in NODES if is_drawn(announced(0.01), node)}
    wide = {node for node in NODES if is_drawn(announced(0.08), node)}
    assert narrow < wide


def test_each_job_draws_other_nodes():
    first, second = ({n for n in NODES if is_drawn(announced(0.1, job), n)} for job in ("j-1", "j-2"))
    assert len(first & second) < 30


@pytest.mark.parametrize("job_id", ["\ud800", "\N{SNOWMAN}"])
def test_any_id_has_a_lot(job_id):
    assert 0 <= lot(JobID(job_id), NODES[0]) < 1


def bidders(announcement: JobAnnounced) -> set[PeerID]:
    """Of a thousand nodes that know each other."""
    return {node for node in NODES if is_drawn(announcement, node, nodes=len(NODES))}


def test_where_a_requester_knows_nobody_few_of_many_bid_and_more_in_each_round():
    rounds = [bidders(announced(1.0, round=number)) for number in (1, 2, 3)]
    assert CROWD * 0.6 < len(rounds[0]) < CROWD * 1.4
    assert rounds[0] < rounds[1] < rounds[2] == set(NODES)


def test_where_a_requester_knows_nobody_a_job_that_wants_many_bids_gets_them():
    assert 400 < len(bidders(announced(1.0, bids_wanted=125))) < 600


def test_in_a_small_network_and_where_the_requester_knows_nodes_nobody_holds_back():
    assert all(is_drawn(announced(1.0), node, nodes=CROWD) for node in NODES)
    assert bidders(announced(1.0, eligible=2)) == set(NODES)


def test_bids_are_spread_more_over_more_nodes_within_a_limit():
    assert spread(0) == 0.0
    assert spread(100) == pytest.approx(0.5)
    assert spread(10_000) == LONGEST_SPREAD
