"""Shares of messages in flight; `test_delivery.py` has what becomes of them."""

from __future__ import annotations

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.in_flight import InFlightMessage, Limit, Shares
from bacalhau_p2p.bprotocol.messages import BidAccepted
from bacalhau_p2p.model.base import PeerID

ALICE, BOB = PeerID("alice"), PeerID("bob")


def message(number: int, to: PeerID = BOB, *, size: int = 1) -> InFlightMessage:
    accepted = BidAccepted(job_id="j", execution_id="e")
    envelope = Envelope(id=MessageID(number.to_bytes(16, "big")), message=accepted, to=to)
    return InFlightMessage(to, envelope, give_up_at=100, due=1, wait=1, size=size, durable=True)


def test_the_messages_to_a_peer_come_in_their_order_and_nothing_is_left_of_those_that_are_removed():
    shares = Shares(Limit(10, 100), Limit(20, 200))
    first, second, other = message(1), message(2), message(3, ALICE)
    for each in (first, second, other):
        shares.add(each)
    assert shares.to(BOB) == [first, second]
    for each in (first, second):
        shares.remove(each)
    assert shares.to(BOB) == []
    assert shares._peers.keys() == {ALICE}


def test_the_peer_with_most_bytes_gives_way_when_bytes_are_too_many():
    shares = Shares(Limit(10, 100), Limit(20, 150))
    for number in range(5):
        shares.add(message(number, ALICE))
    large, last = message(10, size=100), message(11, PeerID("carol"), size=50)
    shares.add(large)
    shares.add(last)
    assert shares.one_too_many(last) is large
    shares.remove(large)
    assert shares.one_too_many(last) is None


def test_what_does_not_fit_is_not_added():
    shares = Shares(Limit(1, 100), Limit(20, 200))
    assert shares.add_if_room(message(1))
    assert not shares.add_if_room(message(2))
    assert not shares.add_if_room(message(3, ALICE, size=101))
    assert [len(shares.to(peer)) for peer in (ALICE, BOB)] == [0, 1]
