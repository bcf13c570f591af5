from __future__ import annotations

import pytest

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo, NodeLoad
from bacalhau_p2p.node import known_nodes as module
from bacalhau_p2p.node.known_nodes import FORGET_AFTER, LOAD_LASTS, KnownNodes

STALE_AFTER = 45.0
"""Seconds: three times the interval of a node that names none."""


@pytest.fixture
def known() -> KnownNodes:
    return KnownNodes()


def info(name: str, sent: float = 0.0, gateway: str = "") -> NodeInfo:
    return NodeInfo(id=PeerID(name), sent=sent, gateway=gateway)


def names(known: KnownNodes) -> list[str]:
    return [node.info.id for node in known.nodes()]


def test_a_newer_info_replaces_an_older_one_but_not_the_other_way_round(known):
    assert known.update(info("a", sent=2.0, gateway="http://new"), 10.0)
    assert not known.update(info("a", sent=1.0, gateway="http://old"), 11.0)
    node = known.get(PeerID("a"))
    assert (node.info.gateway, node.received_at) == ("http://new", 10.0)


def test_nodes_are_ordered_by_peer_id(known):
    for name in "cab":
        known.update(info(name), 0.0)
    assert names(known) == ["a", "b", "c"]


def test_a_node_is_fresh_until_it_has_been_silent_for_too_long(known):
    known.update(info("a"), 0.0)
    node = known.get(PeerID("a"))
    assert node.is_fresh(STALE_AFTER - 1)
    assert not node.is_fresh(STALE_AFTER)


def test_a_node_is_reported_stale_once_for_each_silence(known):
    known.update(info("a"), 0.0)
    assert known.expire(STALE_AFTER - 1) == []
    assert known.expire(STALE_AFTER) == ["a"]
    assert known.expire(STALE_AFTER + 1) == []
    known.update(info("a", sent=1.0), 100.0)
    assert known.expire(100.0 + STALE_AFTER) == ["a"]


def test_a_node_that_stays_silent_is_forgotten(known):
    known.update(info("a"), 0.0)
    known.expire(STALE_AFTER + FORGET_AFTER - 1)
    assert names(known) == ["a"]
    known.expire(STALE_AFTER + FORGET_AFTER)
    assert names(known) == []


def test_a_flood_of_invented_nodes_does_not_fill_the_memory(known, monkeypatch):
    monkeypatch.setattr(module, "MAX_NODES", 2)
    assert known.update(info("a"), 0.0)
    assert known.update(info("b"), 0.0)
    assert not known.update(info("c"), 0.0)
    assert known.update(info("a", sent=1.0), 1.0)
    assert names(known) == ["a", "b"]


def test_only_gateways_of_fresh_nodes_are_used(known):
    known.update(info("a", gateway="http://a"), 0.0)
    known.update(info("b", gateway="http://b"), 10.0)
    known.update(info("c"), 10.0)
    assert known.gateways(STALE_AFTER + 5) == {"b": "http://b"}


def test_a_node_that_announces_itself_rarely_is_fresh_for_longer(known):
    known.update(NodeInfo(id=PeerID("a"), interval=100.0), 0.0)
    node = known.get(PeerID("a"))
    assert node.is_fresh(299.0)
    assert not node.is_fresh(300.0)


def test_a_node_cannot_stay_fresh_for_ever(known):
    known.update(NodeInfo(id=PeerID("a"), interval=1e9), 0.0)
    assert not known.get(PeerID("a")).is_fresh(3 * 3600.0)


def test_the_load_of_a_node_is_what_it_said_last(known):
    busy = NodeLoad(running_executions=2)
    known.update_load(PeerID("a"), busy, 0.0)
    known.update(NodeInfo(id=PeerID("a"), compute=ComputeInfo(running_executions=1)), 1.0)
    known.update_load(PeerID("a"), busy, 2.0)
    node = known.get(PeerID("a"))
    assert node.info_at(2.0 + LOAD_LASTS - 1).compute.running_executions == 2
    assert node.info_at(2.0 + LOAD_LASTS).compute.running_executions == 1
    known.update(NodeInfo(id=PeerID("a"), compute=ComputeInfo(), sent=1.0), 3.0)
    assert known.get(PeerID("a")).info_at(3.0).compute.running_executions == 0
