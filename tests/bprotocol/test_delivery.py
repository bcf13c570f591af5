"""Delivery: at least once on the wire, at most once in effect."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import (
    ACK_DELAY,
    FIRST_REPEAT,
    LONGEST_REPEAT,
    MAX_WAITING_ACKS,
    Delivery,
    Recognition,
)
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
    assert delivery.recognise(ALICE, bid(1).id, 0) is Recognition.NEW
    assert delivery.recognise(ALICE, bid(1).id, 1) is Recognition.PENDING
    delivery.mark_processed(ALICE, bid(1).id, 2)
    assert delivery.recognise(ALICE, bid(1).id, 3) is Recognition.PROCESSED


def test_two_authors_may_use_the_same_id(delivery):
    assert delivery.recognise(ALICE, bid(1).id, 0) is Recognition.NEW
    assert delivery.recognise(BOB, bid(1).id, 0) is Recognition.NEW


def test_a_message_is_not_acknowledged_before_it_is_processed(delivery):
    delivery.recognise(ALICE, bid(1).id, 0)
    assert delivery.acks_due(10) == []
    assert delivery.take_acks(ALICE) == ()


def test_acknowledgements_wait_a_moment_and_are_sent_together(delivery):
    for number in (1, 2):
        delivery.recognise(ALICE, bid(number).id, 0)
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
    delivery.remember(ALICE, bid(1).id, since=10)
    assert delivery.recognise(ALICE, bid(1).id, 20) is Recognition.PROCESSED


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
