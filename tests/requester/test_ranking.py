from __future__ import annotations

import itertools

from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.requester.ranking import RankedBid, rank


def order(*bids: tuple[str, float, int], tried: tuple[str, ...] = ()) -> str:
    """The nodes' names, best first; by lot, an earlier one wins."""
    dice = itertools.count()
    made = [RankedBid(ExecutionID(name), PeerID(name), load, local) for name, load, local in bids]
    ranked = rank(made, tried={PeerID(name) for name in tried}, dice=lambda: next(dice))
    return "".join(bid.node for bid in ranked)


def test_the_idlest_comes_first_where_there_are_no_inputs():
    assert order(("a", 0.9, 0), ("b", 0.02, 0), ("c", 0.2, 0), ("d", 0.26, 0)) == "bcda"


def test_nodes_of_about_the_same_load_are_ranked_by_what_they_have_of_the_inputs():
    assert order(("a", 0.05, 0), ("b", 0.2, 10), ("c", 0.1, 99)) == "cba"


def test_a_much_busier_node_does_not_win_by_its_data():
    assert order(("a", 0.8, 99), ("b", 0.1, 0)) == "ba"


def test_nodes_that_have_as_much_are_ranked_by_their_load_and_then_by_lot():
    assert order(("a", 0.2, 5), ("b", 0.1, 5), ("c", 0.1001, 5)) == "bca"


def test_a_node_that_failed_the_job_comes_last_whatever_it_has():
    assert order(("a", 0.0, 99), ("b", 0.9, 0), tried=("a",)) == "ba"
