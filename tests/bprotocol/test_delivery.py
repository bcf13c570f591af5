"""Delivery: at least once on the wire, at most once in effect."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import delivery as delivery_module
from bacalhau_p2p.bprotocol import processed_ids
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import (
    ACK_DELAY,
    FIRST_REPEAT,
    LONGEST_REPEAT,
    MAX_WAITING_ACKS,
    Delivery,
    Recognition,
)
from bacalhau_p2p.bprotocol.in_flight import Limit
from bacalhau_p2p.bprotocol.messages import MAX_REFUSALS, Bid, Refusal
from bacalhau_p2p.model.base import PeerID

ALICE, BOB = PeerID("alice"), PeerID("bob")


@pytest.fixture
def delivery():
    return Delivery(rng=lambda: 0.5)  # no jitter: intervals double exactly


def bid(number: int) -> Envelope:
    message = Bid(job_id="j", execution_id=f"e-{number}", reserved_for=30)
    return Envelope(id=MessageID(number.to_bytes(16, "big")), message=message, to=BOB)


def test_a_message_is_repeated_with_back_off_until_acknowledged(delivery):
    delivery.post(BOB, bid(1), give_up_at=1000, now=0)
    times, now = [], 0.0
    while len(times) < 7:
        now = delivery.next_deadline()
        assert delivery.repeats(now) == [(BOB, bid(1))]
        times.append(now)
    waits = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert waits == [FIRST_REPEAT, 2, 4, 8, LONGEST_REPEAT, LONGEST_REPEAT, LONGEST_REPEAT]
    delivery.acknowledged(BOB, [bid(1).id])
    assert delivery.next_deadline() is None
    assert delivery.in_flight == 0


def test_only_the_addressee_can_acknowledge(delivery):
    delivery.post(BOB, bid(1), give_up_at=1000, now=0)
    delivery.acknowledged(ALICE, [bid(1).id])
    assert delivery.in_flight == 1


def test_a_message_expires(delivery):
    delivery.post(BOB, bid(1), give_up_at=2.5, now=0)
    assert delivery.repeats(1.0) == [(BOB, bid(1))]
    assert delivery.next_deadline() == 2.5
    assert delivery.repeats(2.5) == []
    assert (delivery.in_flight, delivery.given_up, delivery.next_deadline()) == (0, 1, None)


def test_everything_for_a_peer_that_reconnects_is_due_at_once(delivery):
    delivery.post(BOB, bid(1), give_up_at=1000, now=0)
    delivery.post(ALICE, bid(2), give_up_at=1000, now=0)
    delivery.peer_reconnected(BOB, now=0.1)
    assert delivery.repeats(0.1) == [(BOB, bid(1))]


def test_a_repeat_is_recognised_before_and_after_it_is_processed(delivery):
    assert delivery.recognise(ALICE, bid(1).id) is Recognition.NEW
    assert delivery.recognise(ALICE, bid(1).id) is Recognition.PENDING
    delivery.mark_processed(ALICE, bid(1).id, 2)
    assert delivery.recognise(ALICE, bid(1).id) is Recognition.PROCESSED


def test_two_authors_may_use_the_same_id(delivery):
    assert delivery.recognise(ALICE, bid(1).id) is Recognition.NEW
    assert delivery.recognise(BOB, bid(1).id) is Recognition.NEW


def test_a_message_is_not_acknowledged_before_it_is_processed(delivery):
    delivery.recognise(ALICE, bid(1).id)
    assert delivery.acks_due(10) == []
    assert delivery.take_acks(ALICE) == ()


def test_acknowledgements_wait_a_moment_and_are_sent_together(delivery):
    for number in (1, 2):
        delivery.recognise(ALICE, bid(number).id)
        delivery.mark_processed(ALICE, bid(number).id, 0)
    assert delivery.acks_due(ACK_DELAY / 2) == []
    assert delivery.next_deadline() == ACK_DELAY
    assert delivery.acks_due(ACK_DELAY) == [ALICE]
    assert delivery.take_acks(ALICE) == (bid(1).id, bid(2).id)
    assert delivery.next_deadline() is None


def test_messages_from_before_a_restart_are_due_at_once(delivery):
    delivery.resume(BOB, bid(1), give_up_at=1000, now=50)
    assert delivery.next_deadline() == 50
    assert delivery.repeats(50) == [(BOB, bid(1))]
    delivery.resume(BOB, bid(2), give_up_at=40, now=50)
    assert delivery.repeats(50) == []
    delivery.acknowledged(BOB, [bid(1).id])
    assert delivery.take_finished() == [bid(2).id, bid(1).id]
    assert delivery.take_finished() == []


def test_messages_processed_before_a_restart_are_recognised(delivery):
    delivery.remember(ALICE, bid(1).id)
    assert delivery.recognise(ALICE, bid(1).id) is Recognition.PROCESSED


def test_acknowledgements_that_wait_are_bounded(delivery):
    """A peer that sends much and reads nothing: it repeats what is not acknowledged."""
    for number in range(MAX_WAITING_ACKS + 5):
        delivery.mark_processed(ALICE, bid(number).id, now=0)
    assert len(delivery.take_acks(ALICE)) == MAX_WAITING_ACKS
    for number in range(MAX_REFUSALS + 5):
        delivery.refuse(ALICE, bid(number).id, "unknown kind", now=0)
    assert len(delivery.take_refusals(ALICE)) == MAX_REFUSALS


def test_a_refusal_is_due_like_an_acknowledgement(delivery):
    delivery.refuse(BOB, bid(1).id, "unknown kind", now=5)
    assert delivery.next_deadline() == 5 + ACK_DELAY
    assert delivery.acks_due(5 + ACK_DELAY) == [BOB]
    assert delivery.take_refusals(BOB) == (Refusal(id=bid(1).id, reason="unknown kind"),)
    assert delivery.next_deadline() is None


# --- limits -----------------------------------------------------------------------------------


@pytest.fixture
def limited(monkeypatch):
    """At most three durable messages to a peer and five in all, two and three others; as many KB of each."""
    for name, number in (("DURABLE_TO_PEER", 3), ("DURABLE_TO_ALL", 5)):
        monkeypatch.setattr(delivery_module, name, Limit(number, number * 1000))
    for name, number in (("FLEETING_TO_PEER", 2), ("FLEETING_TO_ALL", 3)):
        monkeypatch.setattr(delivery_module, name, Limit(number, number * 1000))
    return Delivery(rng=lambda: 0.5)


def in_flight(delivery: Delivery) -> list[tuple[PeerID, int]]:
    return sorted((to, int.from_bytes(each.id)) for to, each in delivery.repeats(now=900))


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1, 1], [1000, 1000, 1000, 1, 2999]], ids=["number", "bytes"])
def test_a_peer_that_never_acknowledges_displaces_its_own_oldest_messages_and_nobody_elses(limited, sizes):
    limited.post(ALICE, bid(9), give_up_at=1000, now=0)
    for number, size in enumerate(sizes):
        limited.post(BOB, bid(number), give_up_at=1000, now=0, size=size)
    kept = [(BOB, 3), (BOB, 4)] if max(sizes) > 1 else [(BOB, 2), (BOB, 3), (BOB, 4)]
    finished = [int.from_bytes(name) for name in limited.take_finished()]
    assert finished == [number for number in range(5) if (BOB, number) not in kept]
    assert in_flight(limited) == sorted([(ALICE, 9), *kept])
    assert limited.counters["not_repeated"] == len(finished)


def test_when_all_peers_together_have_too_many_messages_the_one_with_most_loses_its_oldest(limited):
    for number in range(3):
        limited.post(BOB, bid(number), give_up_at=1000, now=0)
    for number, peer in enumerate(("carol", "dave", "erin"), start=10):
        limited.post(PeerID(peer), bid(number), give_up_at=1000, now=0)
    assert in_flight(limited) == [(BOB, 1), (BOB, 2), ("carol", 10), ("dave", 11), ("erin", 12)]


def test_answers_to_strangers_are_sent_once_when_there_are_too_many_and_displace_nothing(limited):
    limited.post(ALICE, bid(9), give_up_at=1000, now=0)
    for number in range(100):
        limited.post(BOB, bid(number), give_up_at=1000, now=0, durable=False)
    for number in range(100, 200):
        limited.post(PeerID(f"stranger-{number}"), bid(number), give_up_at=1000, now=0, durable=False)
    assert in_flight(limited) == [(ALICE, 9), (BOB, 0), (BOB, 1), ("stranger-100", 100)]
    limited.acknowledged(BOB, [bid(0).id])
    limited.post(BOB, bid(300), give_up_at=1000, now=0, durable=False)
    assert limited.in_flight == 4


def test_what_is_too_much_after_a_restart_is_dropped(limited):
    for number in range(5):
        limited.resume(BOB, bid(number), give_up_at=1000, now=0)
    assert [int.from_bytes(name) for name in limited.take_finished()] == [0, 1]
    assert in_flight(limited) == [(BOB, 2), (BOB, 3), (BOB, 4)]


def test_a_message_that_is_not_processed_yet_is_never_forgotten(delivery, monkeypatch):
    monkeypatch.setattr(processed_ids, "REMEMBERED_IDS", 2)
    names = [MessageID(bytes([number]) * 16) for number in range(5)]
    assert [delivery.recognise(BOB, name) for name in names] == [Recognition.NEW] * 5
    assert [delivery.recognise(BOB, name) for name in names] == [Recognition.PENDING] * 5
    for name in names:
        delivery.mark_processed(BOB, name, 2.0)
    assert [delivery.recognise(BOB, name) for name in names] == [
        *[Recognition.NEW] * 3,
        *[Recognition.PROCESSED] * 2,
    ]
