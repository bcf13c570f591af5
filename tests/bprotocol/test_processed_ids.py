"""Which ids are remembered, and how many."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import processed_ids
from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.processed_ids import ProcessedIds
from bacalhau_p2p.model.base import PeerID

ALICE, BOB = PeerID("alice"), PeerID("bob")


def name(number: int) -> MessageID:
    return MessageID(number.to_bytes(16))


@pytest.fixture
def ids(monkeypatch) -> ProcessedIds:
    monkeypatch.setattr(processed_ids, "REMEMBERED_IDS", 8)
    return ProcessedIds()


def remembered(ids: ProcessedIds, author: PeerID) -> list[int]:
    return [number for number in range(100) if ids.has(author, name(number))]


def test_an_id_is_remembered_for_its_author_only(ids):
    ids.add(ALICE, name(1))
    assert ids.has(ALICE, name(1))
    assert not ids.has(BOB, name(1))


def test_at_least_half_as_many_as_the_limit_are_remembered_and_never_more_than_the_limit(ids):
    for number in range(100):
        ids.add((ALICE, BOB)[number % 2], name(number))
        known = sorted(remembered(ids, ALICE) + remembered(ids, BOB))
        assert known == list(range(number + 1 - len(known), number + 1))
        assert min(number + 1, 4) <= len(known) <= 8


def test_an_id_that_is_added_again_takes_the_place_of_no_other(ids):
    for number in range(4):
        ids.add(ALICE, name(number))
    for _ in range(3):
        ids.add(ALICE, name(3))
    assert remembered(ids, ALICE) == [0, 1, 2, 3]
