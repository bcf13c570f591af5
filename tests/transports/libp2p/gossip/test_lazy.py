"""Offers and requests of messages, and their limits."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.libp2p.direct.frames import FrameReader
from bacalhau_p2p.transports.libp2p.gossip import lazy
from bacalhau_p2p.transports.libp2p.gossip.lazy import (
    MAX_ASKED,
    MAX_BROKEN_PROMISES,
    MAX_IDONTWANT_IDS,
    MAX_IHAVE_IDS,
    MAX_IHAVES,
    MAX_IWANT_IDS,
    MAX_OFFERED,
    MAX_PROMISES,
    PROMISE_DURATION,
    LazyGossip,
)
from bacalhau_p2p.transports.libp2p.gossip.neighbour import MAX_ID_LENGTH, MAX_UNWANTED, Neighbour
from bacalhau_p2p.transports.libp2p.gossip.recent import MAX_SERVED, Recent, RecentMessages, SeenIds
from bacalhau_p2p.transports.libp2p.gossip.wire import RPC, Control

TOPIC = "t"


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.seen, self.recent = SeenIds(), RecentMessages()
        self.offences: list[str] = []
        self.counters: Counter[str] = Counter()
        self.lazy = LazyGossip(
            self.seen,
            self.recent,
            clock=lambda: self.now,
            offence=lambda peer, what: self.offences.append(what),
            counters=self.counters,
        )
        self.sent: dict[PeerID, list[bytes]] = {}

    def neighbour(self, name: str = "peer") -> Neighbour:
        peer = PeerID(name)
        neighbour = Neighbour(peer, self.counters, lambda *_: True, [])
        sent = self.sent[peer] = []

        def send_now(data: bytes) -> bool:
            sent.extend(FrameReader().feed(data))
            return True

        stream: Any = SimpleNamespace(send_now=send_now)
        neighbour.opened(stream, SimpleNamespace(is_initiator=True), "/meshsub/1.2.0")
        return neighbour

    def controls(self, neighbour: Neighbour) -> list[Any]:
        """The control messages that were sent to a neighbour since the last call."""
        neighbour.flush()
        taken = [RPC.FromString(encoded).control for encoded in self.sent[neighbour.peer]]
        self.sent[neighbour.peer].clear()
        return taken

    def add(self, identity: bytes, frame: bytes = b"\x01x", topic: str = TOPIC) -> None:
        self.seen.add(identity, self.now)
        self.recent.add(identity, Recent(frame, topic, self.now, set()))

    def offered(
        self, neighbour: Neighbour, *lists: list[bytes], topic: str = TOPIC, mesh: tuple[str, ...] = ()
    ) -> list[bytes]:
        """Let a neighbour offer ids; what it is asked for."""
        control = Control()
        for ids in lists:
            control.ihave.add(topicID=topic, messageIDs=ids)
        self.lazy.offered(neighbour, control.ihave, {TOPIC}, mesh)
        return [identity for answer in self.controls(neighbour) for identity in answer.iwant[0].messageIDs]

    def asked(self, neighbour: Neighbour, ids: list[bytes]) -> int:
        """Let a neighbour ask for messages; how many it gets."""
        control = Control()
        control.iwant.add(messageIDs=ids)
        self.lazy.asked(neighbour, control.iwant)
        neighbour.flush()
        count = len(self.sent[neighbour.peer])
        self.sent[neighbour.peer].clear()
        return count


@pytest.fixture
def bench() -> Bench:
    return Bench()


def ids(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def test_recent_messages_of_the_topic_are_offered_once_to_those_that_have_not_shown_to_have_them(bench):
    neighbour = bench.neighbour()
    for identity in ids(4):
        bench.add(identity)
    bench.add(b"other", topic="u")
    bench.recent.get(b"0").held_by(neighbour.peer)
    neighbour.note_unwanted(b"1")
    bench.now = 1.0
    bench.add(b"new")  # it may still come along the mesh
    bench.lazy.offer(neighbour, TOPIC)
    (control,) = bench.controls(neighbour)
    assert control.ihave[0].topicID == TOPIC
    assert sorted(control.ihave[0].messageIDs) == [b"2", b"3"]
    bench.lazy.offer(neighbour, TOPIC)
    assert bench.controls(neighbour) == []


def test_so_many_ids_are_offered_at_a_time(bench):
    neighbour = bench.neighbour()
    for identity in ids(MAX_OFFERED + 1):
        bench.add(identity)
    for count in (MAX_OFFERED, 1):
        bench.lazy.offer(neighbour, TOPIC, after=0.0)
        (control,) = bench.controls(neighbour)
        assert len(control.ihave[0].messageIDs) == count


def test_what_is_new_is_asked_for_once_until_the_promise_is_broken(bench):
    one, other = bench.neighbour("one"), bench.neighbour("other")
    bench.add(b"0")
    assert bench.offered(one, ids(3)) == ids(2, start=1)
    assert bench.offered(other, ids(3)) == []
    assert one.peer in bench.recent.get(b"0").holders
    bench.lazy.arrived(b"1")
    bench.now = PROMISE_DURATION
    bench.lazy.heartbeat()
    assert (one.broken_promises, one.promises) == (1, 0)
    assert bench.offered(other, [b"2"]) == [b"2"]


def test_members_of_the_mesh_are_asked_whoever_else_was_and_each_keeps_its_own_promise(bench):
    liar, member, other = (bench.neighbour(name) for name in ("liar", "member", "other"))
    assert bench.offered(liar, ids(2), mesh=(TOPIC,)) == ids(2)
    bench.now = 1.0
    assert bench.offered(member, ids(2), mesh=(TOPIC,)) == ids(2)
    assert bench.offered(member, ids(2), mesh=(TOPIC,)) == []
    assert bench.offered(other, ids(2)) == []
    bench.lazy.arrived(ids(2)[0])
    assert (liar.promises, member.promises) == (1, 1)
    bench.now = PROMISE_DURATION
    bench.lazy.heartbeat()
    assert (liar.promises, liar.broken_promises, member.promises, member.broken_promises) == (0, 1, 1, 0)
    assert bench.offered(other, ids(1, start=1)) == []
    bench.now = PROMISE_DURATION + 1.0
    bench.lazy.heartbeat()
    assert (member.promises, member.broken_promises) == (0, 1)
    assert bench.offered(other, ids(1, start=1)) == ids(1, start=1)


def test_ids_that_are_too_long_or_of_another_topic_are_not_asked_for(bench):
    neighbour = bench.neighbour()
    assert bench.offered(neighbour, [bytes(MAX_ID_LENGTH + 1)]) == []
    assert bench.offered(neighbour, [b"1"], topic="unknown") == []
    assert len(bench.offered(neighbour, [bytes(MAX_ID_LENGTH)])) == 1


def test_a_neighbour_that_never_sends_what_it_offers_is_not_asked_any_more(bench):
    neighbour = bench.neighbour()
    for number in range(MAX_BROKEN_PROMISES):
        assert bench.offered(neighbour, [b"%d" % number]) == [b"%d" % number]
        bench.now += PROMISE_DURATION
        bench.lazy.heartbeat()
        neighbour.heartbeat()
    assert bench.offered(neighbour, [b"more"]) == []
    assert bench.offered(bench.neighbour("another"), [b"more"]) == [b"more"]


def test_so_many_messages_are_asked_for_of_one_neighbour_and_of_all(bench):
    for number in range(MAX_ASKED // MAX_PROMISES + 1):
        neighbour = bench.neighbour(f"{number}")
        wanted = bench.offered(neighbour, ids(MAX_PROMISES + 1, start=number * 2 * MAX_PROMISES))
        assert len(wanted) == (MAX_PROMISES if number < MAX_ASKED // MAX_PROMISES else 0)


def test_beyond_so_many_offers_a_second_none_is_read_and_it_is_an_offence_once(bench):
    neighbour = bench.neighbour()
    assert len(bench.offered(neighbour, *[[b"%d" % number] for number in range(20)])) == MAX_IHAVES
    bench.offered(neighbour, [b"more"])
    assert bench.offences == [f"more than {MAX_IHAVES} IHAVE within a second"]
    neighbour.heartbeat()
    assert bench.offered(neighbour, [b"later"]) == [b"later"]


def test_beyond_so_many_offered_ids_a_second_none_is_looked_at(bench, monkeypatch):
    monkeypatch.setattr(lazy, "MAX_PROMISES", 10**6)
    neighbour = bench.neighbour()
    assert len(bench.offered(neighbour, ids(MAX_IHAVE_IDS + 100))) == MAX_IHAVE_IDS
    assert bench.offences == [f"more than {MAX_IHAVE_IDS} IHAVE ids within a second"]


def test_a_message_is_served_so_often_and_not_at_all_when_it_is_gone(bench):
    neighbour = bench.neighbour()
    bench.add(b"0")
    assert bench.asked(neighbour, [b"0", b"gone"] * 5) == MAX_SERVED
    assert bench.counters["broadcasts_sent"] == MAX_SERVED


def test_so_many_bytes_are_served_a_second(bench, monkeypatch):
    monkeypatch.setattr(lazy, "MAX_SERVED_BYTES", 1_000)
    neighbour = bench.neighbour()
    frame = b"\xc7\x01" + bytes(199)
    for identity in ids(20):
        bench.add(identity, frame)
    assert bench.asked(neighbour, ids(20)) == 5
    neighbour.heartbeat()
    assert bench.asked(neighbour, ids(20, start=5)) == 5


def test_beyond_so_many_requests_a_second_is_an_offence(bench):
    neighbour = bench.neighbour()
    bench.asked(neighbour, ids(MAX_IWANT_IDS))
    assert bench.offences == []
    bench.asked(neighbour, ids(2))
    assert bench.offences == [f"more than {MAX_IWANT_IDS} IWANT ids within a second"]


def test_unwanted_ids_are_noted_within_limits(bench):
    neighbour = bench.neighbour()
    bench.add(b"here")
    control = Control()
    control.idontwant.add(messageIDs=[b"here", b"to come", *ids(MAX_IDONTWANT_IDS)])
    bench.lazy.unwanted(neighbour, control.idontwant)
    assert neighbour.peer in bench.recent.get(b"here").holders
    assert neighbour.unwanted(b"to come")
    assert len(neighbour._unwanted) == MAX_UNWANTED
    assert bench.offences == [f"more than {MAX_IDONTWANT_IDS} IDONTWANT ids within a second"]
