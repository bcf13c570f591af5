from __future__ import annotations

import pytest

from bacalhau_p2p.ipfs.dht.wire import Contact
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.node import SHORTEST_INFO_INTERVAL, NodeInfo
from bacalhau_p2p.node.info_pace import MISSED_INTERVALS
from bacalhau_p2p.node.known_nodes import KnownNodes
from bacalhau_p2p.node.peer_book import PeerBook

OWN, CONNECTED, FRESH, STALE = map(PeerID, ("own", "connected", "fresh", "stale"))
NOW = 1000.0


class Transport:
    peer_id = OWN

    def __init__(self) -> None:
        self.peers = {CONNECTED: None}
        self.learned: list[tuple[PeerID, tuple[str, ...]]] = []

    def learn_addresses(self, peer: PeerID, addresses: tuple[str, ...]) -> None:
        self.learned.append((peer, tuple(addresses)))


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def known_nodes() -> KnownNodes:
    known = KnownNodes()
    for peer, received in (
        (OWN, NOW),
        (FRESH, NOW),
        (STALE, NOW - MISSED_INTERVALS * SHORTEST_INFO_INTERVAL),
    ):
        known.update(NodeInfo(id=peer, addresses=(f"/memory/1/p2p/{peer}",), dht=True), received)
    return known


@pytest.fixture
def book(transport, known_nodes) -> PeerBook:
    return PeerBook(transport, known_nodes, lambda: NOW)


def test_candidates_are_connected_peers_and_then_fresh_nodes(book):
    assert book.candidates() == [CONNECTED, FRESH]
    assert book.candidates(1) == [CONNECTED]


def test_dht_nodes_are_fresh_servers_and_connected_peers_without_an_announcement(book, known_nodes):
    assert book.dht_nodes() == [Contact(FRESH, ("/memory/1/p2p/fresh",)), Contact(CONNECTED)]
    known_nodes.update(NodeInfo(id=CONNECTED, dht=False), NOW)
    assert book.dht_nodes() == [Contact(FRESH, ("/memory/1/p2p/fresh",))]


@pytest.mark.parametrize("peer", [OWN, CONNECTED, FRESH, STALE])
def test_addresses_from_another_peer_are_ignored_for_a_peer_that_is_known(book, transport, peer):
    book.learn_from_peer(peer, ["/elsewhere"])
    assert transport.learned == []


def test_addresses_from_another_peer_are_used_for_an_unknown_peer(book, transport):
    book.learn_from_peer(PeerID("new"), ["/somewhere"])
    book.learn_from_peer(PeerID("newer"), [])
    assert transport.learned == [("new", ("/somewhere",))]


def test_addresses_from_a_user_are_not_replaced_by_those_from_a_peer(book, transport):
    book.learn_from_user(PeerID("new"), ["/by/user"])
    book.learn_from_peer(PeerID("new"), ["/by/peer"])
    assert transport.learned == [("new", ("/by/user",))]
