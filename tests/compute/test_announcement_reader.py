"""Announcements and specs as events, and which specs are fetched again."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.draw import lot
from bacalhau_p2p.bprotocol.outlines import large_spec, with_spec
from bacalhau_p2p.compute import announcement_reader
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.announcement_reader import AnnouncementReader
from bacalhau_p2p.compute.assessment import Assessor, Offer
from bacalhau_p2p.compute.bidding import NOT_DRAWN, Assessment
from bacalhau_p2p.model.base import PeerID
from tests.support.machines.compute_bench import ALICE, JOB, SMALL, large_job

NODE, BOB = PeerID("node"), PeerID("bob")
TERMS = {"job_id": JOB, "bids_wanted": 3, "round": 1, "deadline": 60.0}
SPEC = large_job(10_000)
LARGE = large_spec(SPEC)
OUTLINED = say.JobOutlined(outline=LARGE.outline, **TERMS)
DELIVERED = say.SpecDelivered(job_id=JOB, spec=LARGE.encoded)


class Reader(AnnouncementReader):
    """Of a node that has asked alice for the spec of this job."""

    def __init__(self) -> None:
        fits = {"noop": lambda config: []}
        offer = Offer(engines=fits, publishers={"ipfs": fits["noop"]})
        self.awaited = {(ALICE, JOB): OUTLINED}
        assessor = Assessor(node_id=NODE, offer=lambda: offer)
        super().__init__(assessor, lambda author, job_id: self.awaited.get((author, job_id)))


@pytest.fixture
def reader():
    return Reader()


def test_a_small_job_is_assessed_as_it_is(reader):
    message = say.JobAnnounced(spec=SMALL, **TERMS)
    assert reader.event_of(ALICE, message) == ev.AnnouncementReceived(ALICE, message, Assessment())


def test_a_large_job_is_assessed_by_its_outline(reader):
    assert reader.event_of(ALICE, OUTLINED) == ev.OutlineReceived(ALICE, OUTLINED, Assessment())
    narrow = OUTLINED.model_copy(update={"chance": lot(JOB, NODE)})
    assert reader.event_of(ALICE, narrow) == ev.OutlineReceived(ALICE, narrow, NOT_DRAWN)


def test_a_spec_that_comes_is_assessed_with_the_latest_announcement(reader):
    reader.awaited[ALICE, JOB] = later = OUTLINED.model_copy(update={"round": 2})
    event = reader.event_of(ALICE, DELIVERED)
    assert event == ev.SpecReceived(ALICE, with_spec(later, SPEC), Assessment())


def test_a_spec_is_taken_only_of_the_requester_that_was_asked(reader):
    assert reader.event_of(BOB, DELIVERED) == ev.MessageReceived(BOB, DELIVERED)


def test_what_is_not_the_spec_that_was_announced_is_refused(reader):
    wrong = say.SpecDelivered(job_id=JOB, spec=b"wrong")
    event = reader.event_of(ALICE, wrong)
    assert event == ev.SpecRefused(ALICE, JOB, "the bytes are not those of the spec that was outlined")


def test_an_empty_spec_says_that_no_bids_are_wanted(reader):
    nothing = say.SpecDelivered(job_id=JOB, spec=b"")
    assert reader.event_of(ALICE, nothing) == ev.MessageReceived(ALICE, nothing)


def test_a_job_that_is_announced_again_is_not_fetched_again(reader):
    reader.event_of(ALICE, DELIVERED)
    again = OUTLINED.model_copy(update={"round": 2})
    event = reader.event_of(ALICE, again)
    assert event == ev.AnnouncementReceived(ALICE, with_spec(again, SPEC), Assessment())
    assert isinstance(reader.event_of(BOB, again), ev.OutlineReceived)


def test_a_false_outline_of_a_spec_that_is_known_gains_nothing(reader):
    reader.event_of(ALICE, DELIVERED)
    false = OUTLINED.model_copy(update={"outline": LARGE.outline.replace(inputs=5)})
    assert isinstance(reader.event_of(ALICE, false), ev.OutlineReceived)


def test_specs_that_were_fetched_are_bounded_in_bytes(reader, monkeypatch):
    monkeypatch.setattr(announcement_reader, "MAX_FETCHED_BYTES", 25_000)
    for size in (10_000, 10_001, 10_002):
        large = large_spec(large_job(size))
        message = say.JobOutlined(outline=large.outline, **TERMS)
        reader.awaited[ALICE, JOB] = message
        reader.event_of(ALICE, say.SpecDelivered(job_id=JOB, spec=large.encoded))
        assert isinstance(reader.event_of(ALICE, message), ev.AnnouncementReceived)
    assert isinstance(reader.event_of(ALICE, OUTLINED), ev.OutlineReceived)


def test_a_spec_that_is_delivered_again_and_again_counts_once(reader, monkeypatch):
    """The bytes of each delivery were added up, until no large job could be taken any more."""
    monkeypatch.setattr(announcement_reader, "MAX_FETCHED_BYTES", 25_000)
    for _ in range(10):
        assert isinstance(reader.event_of(ALICE, DELIVERED), ev.SpecReceived)
    assert isinstance(reader.event_of(ALICE, OUTLINED), ev.AnnouncementReceived)
