from __future__ import annotations

from bacalhau_p2p.ipfs.dht.routing_table import BUCKET_SIZE, RoutingTable, nearest, position
from bacalhau_p2p.ipfs.dht.wire import Contact, peer_key
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
