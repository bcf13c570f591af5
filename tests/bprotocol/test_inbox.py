"""Only valid messages from peers within their rate reach the components."""

from __future__ import annotations

from collections import Counter

import cbor2
import pytest

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, encode_broadcast, encode_frame
from bacalhau_p2p.bprotocol.delivery import Delivery
from bacalhau_p2p.bprotocol.inbox import Arrival, Inbox
from bacalhau_p2p.bprotocol.messages import (
    Ack,
    BidAccepted,
    ExecutionFailed,
    Heartbeat,
    JobClosed,
    NodeInfoPublished,
    Refusal,
    ResultProposed,
)
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.interface import Broadcast

ALICE, BOB, CAROL = PeerID("alice"), PeerID("bob"), PeerID("carol")
ACCEPTED = BidAccepted(job_id="j", execution_id="e")
JOBS, MAIL = "/bacalhau/1/test/jobs", "/bacalhau/1/test/mail"


class Bench:
    """Alice's inbox, its clock, and what reached a component."""

    def __init__(self) -> None:
        self.now = 0.0
        self.received = []
        self.processed = []
        self.refused = []
        self.counters = Counter()
        self.delivery = Delivery(rng=lambda: 0.5)
        self.budgets = Budgets(
            lambda: self.now, is_connected=lambda peer: False, cut_off=lambda peer, seconds: None
        )
        self.inbox = Inbox(
            ALICE,
            "test",
            self.delivery,
            budgets=self.budgets,
            clock=lambda: self.now,
            mark_processed=self._mark_processed,
            refuse=lambda author, name, reason: self.refused.append((author, name, reason)),
            counters=self.counters,
        )
        self.inbox.listen([BidAccepted, JobClosed], self.received.append)

    def receive_broadcast(self, author, topic, payload) -> None:
        for _ in self.inbox.receive_broadcast(Broadcast(author, topic, payload)):
            pass

    def _mark_processed(self, arrival) -> None:
        self.processed.append(arrival)
        if arrival.id is not None:
            self.delivery.mark_processed(arrival.author, arrival.id, self.now)


@pytest.fixture
def bench():
    return Bench()


def envelope(message=ACCEPTED, to=ALICE, name=b"i", **more):
    return Envelope(id=MessageID(name * 16), message=message, to=to, **more)


def test_a_frame_reaches_the_listeners_of_its_kind(bench):
    bench.inbox.receive_frame(BOB, encode_frame(envelope()))
    assert [(a.author, a.message, a.id) for a in bench.received] == [(BOB, ACCEPTED, b"i" * 16)]


def test_a_repeat_is_not_delivered_and_is_acknowledged_once_processed(bench):
    frame = encode_frame(envelope())
    bench.inbox.receive_frame(BOB, frame)
    bench.inbox.receive_frame(BOB, frame)
    assert (len(bench.received), bench.processed) == (1, [])
    bench._mark_processed(bench.received[0])
    assert bench.delivery.take_acks(BOB) == (b"i" * 16,)
    bench.inbox.receive_frame(BOB, frame)
    assert len(bench.received) == 1
    assert bench.delivery.take_acks(BOB) == (b"i" * 16,)
    assert bench.counters["repeats"] == 2


def test_a_message_that_no_component_handles_is_acknowledged(bench):
    frame = encode_frame(envelope(Heartbeat(executions=())))
    bench.inbox.receive_frame(BOB, frame)
    assert (bench.received, bench.counters["unheard"]) == ([], 1)
    assert len(bench.processed) == 1


def test_acknowledgements_count_alone_and_on_other_messages(bench):
    for name in (b"1", b"2"):
        bench.delivery.post(BOB, envelope(to=BOB, name=name), give_up_at=100, now=0)
    bench.inbox.receive_frame(BOB, encode_frame(envelope(Ack(ids=(b"1" * 16,)))))
    assert bench.delivery.in_flight == 1
    bench.inbox.receive_frame(BOB, encode_frame(envelope(acks=(b"2" * 16,))))
    bench.inbox.receive_envelope(BOB, envelope(acks=(MessageID(b"2" * 16),)))
    assert bench.delivery.in_flight == 0


FUTURE = cbor2.dumps({**cbor2.loads(encode_frame(envelope())), "kind": "later"})
MALFORMED = cbor2.dumps({**cbor2.loads(encode_frame(envelope())), "execution": ""})
OTHER_VERSION = cbor2.dumps({**cbor2.loads(encode_frame(envelope())), "v": 2})


@pytest.mark.parametrize(
    ("frame", "counter"),
    [(FUTURE, "unheard"), (MALFORMED, "malformed"), (OTHER_VERSION, "malformed")],
    ids=["an unknown kind", "a malformed body", "another version"],
)
def test_who_sent_what_is_refused_for_good_is_told(bench, frame, counter):
    bench.inbox.receive_frame(BOB, frame)
    bench.receive_broadcast(BOB, MAIL, b"\x81" + frame)
    assert [(author, name) for author, name, _ in bench.refused] == [(BOB, b"i" * 16)] * 2
    assert bench.counters == {counter: 2}
    assert bench.received == []


def test_a_result_that_cannot_be_read_is_a_failure_of_its_execution(bench):
    bench.inbox.listen([ExecutionFailed], bench.received.append)
    sealed = ResultProposed(job_id="j", execution_id="e", sealed=b"x")
    frame = cbor2.dumps({**cbor2.loads(encode_frame(envelope(sealed))), "body": {"sealed": "text"}})
    for _ in range(2):  # and its repeat
        bench.inbox.receive_frame(BOB, frame)
    (arrival,) = bench.received
    assert (arrival.author, arrival.message.job_id, arrival.message.execution_id) == (BOB, "j", "e")
    assert "invalid result_proposed: malformed message: sealed" in arrival.message.reason


def test_refused_messages_to_others_and_refused_acks_are_not_answered(bench):
    to_carol = cbor2.dumps({**cbor2.loads(encode_frame(envelope(to=CAROL))), "kind": "later"})
    bad_ack = cbor2.dumps({**cbor2.loads(encode_frame(envelope(Ack(ids=())))), "body": {}})
    for frame in (to_carol, bad_ack):
        bench.inbox.receive_frame(BOB, frame)
        bench.receive_broadcast(BOB, MAIL, b"\x81" + frame)
    assert bench.refused == []


def test_a_refused_announcement_does_not_hide_its_neighbours(bench):
    good = cbor2.loads(encode_frame(envelope(JobClosed(job_id="j"), to=None)))
    bench.receive_broadcast(BOB, JOBS, cbor2.dumps([good, {**good, "body": []}, cbor2.undefined, good]))
    assert len(bench.received) == 2
    assert bench.counters == {"malformed": 2}


def test_a_refusal_ends_the_repeats_and_is_logged(bench, caplog):
    bench.delivery.post(BOB, envelope(to=BOB), give_up_at=100, now=0)
    told = Ack(ids=(b"i" * 16,), refused=(Refusal(id=b"i" * 16, reason="malformed"),))
    bench.inbox.receive_frame(CAROL, encode_frame(envelope(told)))
    assert (bench.delivery.in_flight, caplog.records) == (1, [])
    bench.inbox.receive_frame(BOB, encode_frame(envelope(told)))
    assert bench.delivery.in_flight == 0
    assert bench.counters["refused_by_peer"] == 1
    assert "bid_accepted" in caplog.text


def test_a_broadcast_is_handled_envelope_by_envelope_and_names_who_handed_it_over(bench):
    payload = encode_broadcast([envelope(JobClosed(job_id=f"j{n}"), to=None) for n in range(3)])
    steps = bench.inbox.receive_broadcast(Broadcast(BOB, JOBS, payload, neighbour=CAROL))
    seen = [len(bench.received) for _ in steps]
    assert seen == [1, 2, 3]
    assert {(a.author, a.neighbour) for a in bench.received} == {(BOB, CAROL)}


def test_who_acknowledges_a_message_of_this_node_is_no_stranger(bench):
    bench.delivery.post(BOB, envelope(to=BOB, name=b"1"), give_up_at=100, now=0)
    for peer in (BOB, CAROL):  # only one of them was asked
        bench.inbox.receive_frame(peer, encode_frame(envelope(Ack(ids=(b"1" * 16,)))))
    assert (bench.budgets.has_answered(BOB), bench.budgets.has_answered(CAROL)) == (True, False)


def test_the_worst_senders_are_known(bench):
    for _ in range(3):
        bench.inbox.receive_frame(CAROL, b"garbage")
    bench.inbox.receive_frame(BOB, MALFORMED)
    assert bench.budgets.offences.worst() == {CAROL: {"malformed": 3}, BOB: {"malformed": 1}}


def test_mail_counts_as_direct_and_only_for_its_addressee(bench):
    mail = encode_broadcast([envelope(), envelope(to=CAROL, name=b"c")])
    bench.receive_broadcast(BOB, MAIL, mail)
    assert [a.id for a in bench.received] == [b"i" * 16]


@pytest.mark.parametrize(
    ("frame", "counter"),
    [
        (b"", "malformed"),
        (b"garbage", "malformed"),
        (encode_frame(envelope(to=CAROL)), "unheard"),
        (encode_frame(envelope(NodeInfoPublished(info=NodeInfo(id=BOB)))), "unheard"),
    ],
    ids=["empty", "garbage", "to another peer", "a kind for everybody"],
)
def test_a_wrong_frame_is_counted_and_changes_nothing(bench, frame, counter):
    bench.inbox.receive_frame(BOB, frame)
    assert bench.received == bench.processed == []
    assert bench.counters == {counter: 1}


def test_what_is_said_about_a_job_may_be_said_to_this_node_alone(bench):
    bench.inbox.receive_frame(BOB, encode_frame(envelope(JobClosed(job_id="j"))))
    assert bench.received == [Arrival(BOB, JobClosed(job_id="j"))]


@pytest.mark.parametrize(
    ("payload", "counter"),
    [(b"\xff", "malformed"), (encode_broadcast([envelope(to=None)]), "unheard")],
    ids=["garbage", "a direct kind"],
)
def test_a_wrong_broadcast_is_counted_and_changes_nothing(bench, payload, counter):
    bench.receive_broadcast(BOB, JOBS, payload)
    assert bench.received == bench.processed == []
    assert bench.counters == {counter: 1}


def announcement(chance: float, **more: object) -> dict[str, object]:
    body = {"chance": chance, **more}
    return {"v": 1, "id": bytes(16), "kind": "job_announced", "job": "j", "body": body}


def test_nothing_but_the_lot_is_looked_at_of_a_job_that_is_for_others(bench):
    asked = []

    def is_for_others(author, job_id, chance):
        asked.append((author, job_id, chance))
        return True

    bench.inbox.pass_over(is_for_others)
    bench.receive_broadcast(BOB, JOBS, cbor2.dumps([announcement(0.25, spec="whatever")]))
    assert asked == [(BOB, "j", 0.25)]
    assert (bench.received, bench.counters) == ([], {})
    assert bench.inbox.received == {"job_announced": 1}


@pytest.mark.parametrize(
    "item",
    [
        announcement(1.0),
        announcement(2.5),
        announcement("half"),
        {**announcement(0.25), "job": ""},
        {**announcement(0.25), "v": 2},
        {**announcement(0.25), "body": []},
    ],
    ids=["for everybody", "no chance", "not a number", "no job", "another version", "no body"],
)
def test_what_is_not_plainly_for_others_is_read_as_a_whole(bench, item):
    bench.inbox.pass_over(lambda author, job_id, chance: True)
    bench.receive_broadcast(BOB, JOBS, cbor2.dumps([item]))
    assert bench.received == []
    assert bench.counters == {"malformed": 1}
