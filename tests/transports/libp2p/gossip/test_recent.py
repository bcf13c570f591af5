"""What a node remembers of messages."""

from __future__ import annotations

import pytest

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.libp2p.gossip.recent import (
    MAX_HOLDERS,
    MAX_RECENT,
    MAX_RECENT_BYTES,
    MAX_SEEN,
    MAX_SERVED,
    RECENT_DURATION,
    SEEN_DURATION,
    Recent,
    RecentMessages,
    SeenIds,
)


def message(size: int = 10, since: float = 0.0) -> Recent:
    return Recent(bytes(size), "t", since, set())


def test_an_id_is_remembered_for_two_minutes_at_least_and_four_at_most():
    seen = SeenIds()
    seen.add(b"first", 1000.0)
    seen.add(b"second", 1000.0 + SEEN_DURATION)
    assert b"first" in seen
    assert b"second" in seen
    seen.add(b"third", 1000.0 + 2 * SEEN_DURATION)
    assert b"first" not in seen
    assert b"second" in seen


def test_so_many_ids_are_remembered():
    seen = SeenIds()
    for number in range(2 * MAX_SEEN):
        seen.add(b"%d" % number, 0.0)
    assert len(seen) <= MAX_SEEN
    assert b"%d" % (2 * MAX_SEEN - MAX_SEEN // 2) in seen


@pytest.mark.parametrize(
    ("size", "count", "kept"),
    [(10, MAX_RECENT + 5, MAX_RECENT), (1024 * 1024, 40, MAX_RECENT_BYTES // 1024**2)],
)
def test_so_many_messages_and_bytes_can_be_asked_for(size, count, kept):
    recent = RecentMessages()
    for number in range(count):
        recent.add(b"%d" % number, message(size))
    assert len(recent) == kept
    assert recent.get(b"0") is None
    assert recent.get(b"%d" % (count - 1)) is not None


def test_old_messages_are_forgotten():
    recent = RecentMessages()
    recent.add(b"old", message(since=0.0))
    recent.add(b"new", message(since=1.0))
    recent.forget_old(RECENT_DURATION)
    assert recent.get(b"old") is None
    assert [identity for identity, _ in recent.newest_first()] == [b"new"]


def test_so_many_holders_of_a_message_are_remembered_each_once():
    held = message()
    assert held.held_by(PeerID("a"))
    assert not held.held_by(PeerID("a"))
    for number in range(2 * MAX_HOLDERS):
        held.held_by(PeerID(f"{number}"))
    assert len(held.holders) == MAX_HOLDERS


def test_a_neighbour_that_is_lost_holds_nothing():
    recent, held = RecentMessages(), message()
    recent.add(b"1", held)
    held.held_by(PeerID("a"))
    recent.forget_peer(PeerID("a"))
    assert held.held_by(PeerID("a"))


def test_a_message_is_served_to_one_neighbour_so_often_and_to_so_many():
    served = message()
    assert [served.may_serve(PeerID("a")) for _ in range(MAX_SERVED + 1)] == [True] * MAX_SERVED + [False]
    for number in range(2 * MAX_HOLDERS):
        served.may_serve(PeerID(f"{number}"))
    assert len(served.served) == MAX_HOLDERS
