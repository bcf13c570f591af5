"""The mesh of one topic, without a network."""

from __future__ import annotations

from random import Random

import pytest

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.libp2p.gossip.mesh import (
    BACKOFF_SLACK,
    DEGREE,
    DEGREE_HIGH,
    DEGREE_LOW,
    DEGREE_OUT,
    LAZY_DEGREE,
    LONGEST_BACKOFF,
    MAX_BACKOFFS,
    MAX_EARLY_GRAFTS,
    MAX_NEEDY,
    PRUNE_BACKOFF,
    Mesh,
    Reply,
)


def peer(number: int) -> PeerID:
    return PeerID(f"peer-{number}")


def mesh_of(neighbours: int, *, dialled: bool = False) -> Mesh:
    mesh = Mesh(Random(1))
    for number in range(neighbours):
        mesh.joined(peer(number), 0.0, dialled=dialled)
    return mesh


def test_neighbours_are_grafted_up_to_the_degree_as_they_join():
    mesh = Mesh(Random(1))
    grafted = [mesh.joined(peer(number), 0.0, dialled=False).graft for number in range(20)]
    assert grafted == [[peer(number)] for number in range(DEGREE)] + [[]] * (20 - DEGREE)
    assert len(mesh) == DEGREE


def test_a_mesh_that_is_full_prunes_a_neighbour_that_has_enough_links():
    mesh = mesh_of(20)
    replies = [mesh.grafted(peer(number), DEGREE, 0.0) for number in range(DEGREE, 20)]
    assert replies == [Reply.ACCEPT] * (DEGREE_HIGH - DEGREE) + [Reply.REFUSE] * (20 - DEGREE_HIGH)


def test_a_graft_without_a_number_of_links_is_that_of_one_that_has_enough():
    mesh = mesh_of(20)
    replies = [mesh.grafted(peer(number), None, 0.0) for number in range(DEGREE, 20)]
    assert replies.count(Reply.ACCEPT) == DEGREE_HIGH - DEGREE


def test_a_mesh_that_is_full_takes_those_that_have_too_few_links_and_keeps_them():
    mesh = mesh_of(40)
    for number in range(DEGREE, 40):
        assert mesh.grafted(peer(number), 1, 0.0) is Reply.ACCEPT
    assert mesh.heartbeat(1.0).prune == []
    assert len(mesh) == 40


def test_there_is_a_limit_to_those_that_say_to_have_too_few_links():
    mesh = mesh_of(MAX_NEEDY + DEGREE + 10)
    replies = [mesh.grafted(peer(number), 0, 0.0) for number in range(DEGREE, MAX_NEEDY + DEGREE + 10)]
    assert replies == [Reply.ACCEPT] * MAX_NEEDY + [Reply.REFUSE] * 10


def test_a_mesh_that_is_too_large_is_pruned_to_the_degree_once_its_members_have_enough_links():
    mesh = mesh_of(40)
    for number in range(DEGREE, 40):
        mesh.grafted(peer(number), 1, 0.0)
    for number in range(40):
        mesh.grafted(peer(number), DEGREE, 0.0)
    pruned = mesh.heartbeat(1.0).prune
    assert len(pruned) == 40 - DEGREE
    assert len(mesh) == DEGREE


def test_pruning_keeps_links_to_peers_that_this_node_dialled():
    mesh = Mesh(Random(1))
    for number in range(30):
        mesh.joined(peer(number), 0.0, dialled=number < DEGREE_OUT)
        mesh.grafted(peer(number), 1, 0.0)
    for number in range(30):
        mesh.grafted(peer(number), DEGREE, 0.0)
    mesh.heartbeat(1.0)
    assert all(peer(number) in mesh for number in range(DEGREE_OUT))


def test_a_mesh_of_peers_that_dialled_this_node_grafts_some_that_it_dialled():
    mesh = mesh_of(DEGREE)
    for number in range(100, 105):
        mesh.joined(peer(number), 0.0, dialled=True)
    grafted = mesh.heartbeat(1.0).graft
    assert sum(peer(number) in grafted for number in range(100, 105)) == DEGREE_OUT
    assert mesh.heartbeat(2.0).graft == []


def test_a_mesh_that_loses_members_is_filled_up_at_once():
    mesh = mesh_of(20)
    changes = [mesh.left(peer(number), 1.0) for number in range(DEGREE - DEGREE_LOW + 1)]
    assert [len(each.graft) for each in changes] == [0] * (DEGREE - DEGREE_LOW) + [DEGREE - DEGREE_LOW + 1]
    assert len(mesh) == DEGREE


def test_a_pruned_link_is_not_grafted_until_its_backoff_has_passed():
    mesh = mesh_of(1)
    mesh.pruned(peer(0), 10.0, 0.0)
    assert mesh.heartbeat(10.0).graft == []
    assert mesh.joined(peer(0), 10.0, dialled=False).graft == []
    assert mesh.heartbeat(10.0 + BACKOFF_SLACK).graft == [peer(0)]


def test_a_backoff_of_years_is_cut():
    mesh = mesh_of(1)
    mesh.pruned(peer(0), 2.0**62, 0.0)
    assert mesh.heartbeat(LONGEST_BACKOFF + BACKOFF_SLACK).graft == [peer(0)]


def test_grafts_during_a_backoff_are_refused_and_then_an_offence():
    mesh = mesh_of(20)
    for number in range(DEGREE, 20):
        mesh.grafted(peer(number), DEGREE, 0.0)
    replies = [mesh.grafted(peer(19), 0, 1.0) for _ in range(MAX_EARLY_GRAFTS + 2)]
    assert replies == [Reply.REFUSE] * MAX_EARLY_GRAFTS + [Reply.OFFENCE] * 2
    assert mesh.grafted(peer(19), 0, 1.0 + PRUNE_BACKOFF) is Reply.ACCEPT


def test_who_has_not_subscribed_is_not_grafted_and_its_prune_is_not_remembered():
    mesh = mesh_of(3)
    assert mesh.grafted(peer(9), 0, 0.0) is Reply.REFUSE
    assert mesh.pruned(peer(9), 60.0, 0.0).graft == []
    assert mesh.joined(peer(9), 1.0, dialled=False).graft == [peer(9)]


def test_so_many_backoffs_are_remembered():
    mesh = Mesh(Random(1))
    for number in range(MAX_BACKOFFS + 10):
        mesh.joined(peer(number), 0.0, dialled=False)
        mesh.pruned(peer(number), 60.0, 0.0)
        mesh.left(peer(number), 0.0)
    assert len(mesh._backoffs) == MAX_BACKOFFS
    mesh.heartbeat(100.0)
    assert len(mesh._backoffs) == 0


def test_members_are_told_when_this_node_has_enough_links_and_when_it_has_too_few():
    mesh = mesh_of(1)
    for number in range(1, DEGREE_LOW - 1):
        mesh.joined(peer(number), 0.0, dialled=False)
    assert mesh.heartbeat(1.0).graft == []
    mesh.joined(peer(DEGREE_LOW), 1.0, dialled=False)
    assert len(mesh.heartbeat(2.0).graft) == DEGREE_LOW - 1  # all but the last, which was told
    assert mesh.heartbeat(3.0).graft == []
    mesh.left(peer(0), 3.0)
    assert len(mesh.heartbeat(4.0).graft) == DEGREE_LOW - 1


@pytest.mark.parametrize("outside", [0, 3, LAZY_DEGREE, 50, 400])
def test_all_outside_of_the_mesh_have_their_turn_within_four_heartbeats(outside):
    mesh = mesh_of(DEGREE + outside)
    turns = [mesh.next_outside() for _ in range(4)]
    assert len({each for turn in turns for each in turn}) == outside
    assert all(each not in mesh for turn in turns for each in turn)
