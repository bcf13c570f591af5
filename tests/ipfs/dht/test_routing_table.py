from __future__ import annotations

from bacalhau_p2p.ipfs.dht.routing_table import (
    BUCKET_SIZE,
    RoutingTable,
    SortedContacts,
    nearest,
    peer_position,
    position,
)
from bacalhau_p2p.ipfs.dht.wire import Contact, peer_key
from bacalhau_p2p.model.base import PeerID
from tests.support.networks.dht_net import identity


def contact(number: int) -> Contact:
    return Contact(identity(number).peer_id)


def distance(contact: Contact, key: bytes) -> int:
    return position(peer_key(contact.peer) or b"") ^ position(key)


def test_the_nearest_contacts_are_those_at_the_smallest_distance():
    contacts = [contact(number) for number in range(50)]
    found = nearest(b"key", contacts, 10)
    distances = sorted(distance(each, b"key") for each in contacts)
    assert [distance(each, b"key") for each in found] == distances[:10]


def test_sorted_contacts_find_the_same_nearest_as_a_comparison_with_all():
    contacts = [contact(number) for number in range(300)]
    in_order = SortedContacts(contacts[:200])
    for each in contacts[200:]:
        in_order.add(each)
    for each in contacts[:100]:
        in_order.remove(each.peer)
    assert len(in_order) == len(list(in_order)) == 200
    for number in range(50):
        key = bytes((number,))
        for count in (1, 3, BUCKET_SIZE, 200, 500):
            assert in_order.nearest(key, count) == nearest(key, contacts[100:], count)
    assert SortedContacts().nearest(b"key", 5) == []


def test_sorted_contacts_have_each_node_once_and_none_without_a_peer_id():
    old, new = contact(1), Contact(contact(1).peer, ("/memory/1",))
    malformed = Contact(PeerID("0OIl"))
    assert peer_position(malformed.peer) is None
    sorted_contacts = SortedContacts((old, malformed, new))
    sorted_contacts.add(malformed)
    sorted_contacts.remove(malformed.peer)
    sorted_contacts.remove(contact(2).peer)
    assert list(sorted_contacts) == [new]
    sorted_contacts.add(old)
    assert sorted_contacts.nearest(b"key", 5) == [old]


def test_a_full_bucket_keeps_its_old_nodes_until_they_fail():
    table = RoutingTable(identity(0).peer_id)
    for number in range(1, 400):
        table.add(contact(number))
    before = table.contacts()
    assert len(before) < 399
    newcomer = next(each for number in range(400, 500) if nearer_than_half(each := contact(number)))
    table.add(newcomer)
    assert table.contacts() == before
    failed = [each for each in before if nearer_than_half(each)]
    assert len(failed) == BUCKET_SIZE
    table.remove(failed[0].peer)
    table.add(newcomer)
    assert {each.peer for each in table.contacts()} == {each.peer for each in before} - {failed[0].peer} | {
        newcomer.peer
    }


def nearer_than_half(contact: Contact) -> bool:
    """Whether a contact belongs to the bucket of the nodes that are farthest from node 0."""
    own = position(peer_key(identity(0).peer_id) or b"")
    return (position(peer_key(contact.peer) or b"") ^ own).bit_length() == 256
