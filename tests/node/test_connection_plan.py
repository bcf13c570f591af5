"""How many connections a node keeps, and which it closes."""

from __future__ import annotations

from bacalhau_p2p.node.connection_plan import GRACE, HIGH_WATER, ConnectionPlan

PEERS = [f"peer-{number}" for number in range(HIGH_WATER + 10)]


def old_connections(plan: ConnectionPlan) -> float:
    """All of PEERS have been connected for long; returns the time."""
    plan.connected(PEERS, 0)
    plan.connected(PEERS, GRACE)
    return GRACE


def test_connections_are_missing_until_there_are_as_many_as_wanted():
    plan = ConnectionPlan(3)
    assert plan.missing == 3
    plan.connected(PEERS[:2], 0)
    assert plan.missing == 1
    plan.connected(PEERS, 0)
    assert plan.missing == 0


def test_peers_that_are_no_nodes_do_not_count_once_they_are_not_new():
    plan, members = ConnectionPlan(3), set(PEERS[:2])
    plan.connected(PEERS[:3], 0, members.__contains__)
    assert plan.missing == 0
    plan.connected(PEERS[:3], GRACE, members.__contains__)
    assert plan.missing == 1
    plan.connected(PEERS[:3], 2 * GRACE, lambda peer: True)
    assert plan.missing == 0


def test_as_many_are_closed_as_there_are_too_many_in_the_given_order():
    plan = ConnectionPlan(3)
    now = old_connections(plan)
    assert plan.to_close((), now, PEERS) == PEERS[:10]
    plan.connected(PEERS[:HIGH_WATER], now)
    assert plan.to_close((), now, PEERS) == []


def test_peers_in_use_new_ones_and_those_that_it_dialled_are_kept():
    plan = ConnectionPlan(3)
    plan.connected(PEERS[4:], 0)
    for number in (7, 8, 9, 10):
        plan.dialled(PEERS[number], 0)
    plan.connected(PEERS, GRACE)  # the first four are new
    closed = plan.to_close({PEERS[5]}, GRACE, PEERS)
    assert closed == [PEERS[4], PEERS[6], *PEERS[10:18]]  # of its own, it keeps as many as it wants


def test_a_lost_connection_is_new_again_when_it_comes_back():
    plan = ConnectionPlan(3)
    plan.connected(PEERS, 0)
    plan.connected(PEERS[1:], 1)
    plan.connected(PEERS, 2)
    assert plan.to_close((), GRACE + 1, PEERS)[0] == PEERS[1]
