"""bprotocol over a transport: what is sent arrives once, and nothing else has an effect."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, encode_broadcast, encode_frame
from bacalhau_p2p.bprotocol.messenger import Arrival, Messenger
from bacalhau_p2p.components.outbox import ProcessedMessage
from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.transports.memory.network import LinkConditions, MemoryNetwork, MemoryTransport

ALICE, BOB, CAROL = (Identity.generate(bytes([number]) * 32).peer_id for number in range(1, 4))
ACCEPTED = say.BidAccepted(job_id="j", execution_id="e")


class Station:
    """A messenger and what it heard; `settles` as soon as it hears."""

    def __init__(self, transport: MemoryTransport, *, settles: bool = True) -> None:
        ids = itertools.count(1)
        prefix = transport.peer_id[-8:].encode()
        self.transport = transport
        self.messenger = Messenger(
            transport,
            network="test",
            clock=trio.current_time,
            rng=Random(1).random,
            new_message_id=lambda: MessageID(prefix + next(ids).to_bytes(8, "big")),
        )
        self.heard: list[Arrival] = []
        self.settles = settles
        self.messenger.listen([say.BidAccepted, say.JobClosed, say.Heartbeat], self._hear)

    def _hear(self, arrival: Arrival) -> None:
        self.heard.append(arrival)
        if self.settles:
            self.messenger.settle(arrival)

    def say(self, to: PeerID, message: say.Message = ACCEPTED, *, for_seconds: float = 3600) -> None:
        posted = self.messenger.compose(to, message, trio.current_time() + for_seconds)
        self.messenger.dispatch(posted, owner=self)


@asynccontextmanager
async def station(wires: MemoryNetwork, peer: PeerID, **options: bool) -> AsyncIterator[Station]:
    async with wires.open(peer) as transport, background() as nursery:
        opened = Station(transport, **options)
        await nursery.start(opened.messenger.run)
        yield opened


async def test_a_message_arrives_once_and_is_acknowledged(autojump_clock):
    wires = MemoryNetwork()
    async with station(wires, ALICE) as alice, station(wires, BOB) as bob:
        alice.say(BOB)
        await alice.messenger.quiet(10)
        assert [(a.author, a.message) for a in bob.heard] == [(ALICE, ACCEPTED)]
        assert alice.messenger.underway == 0
        assert len(alice.messenger.take_finished(alice)) == 1


@pytest.mark.parametrize("seed", range(5))
async def test_bad_links_change_only_how_long_it_takes(autojump_clock, seed):
    wires = MemoryNetwork(random=Random(seed))
    wires.set_conditions(LinkConditions(loss=0.4, repetition=0.3, reordering=0.5, jitter=0.3))
    async with station(wires, ALICE) as alice, station(wires, BOB) as bob:
        messages = [say.BidAccepted(job_id="j", execution_id=f"e-{n}") for n in range(30)]
        for message in messages:
            alice.say(BOB, message)
        await alice.messenger.quiet(3600)
        assert sorted(a.message.execution_id for a in bob.heard) == sorted(m.execution_id for m in messages)


async def test_nothing_is_acknowledged_before_it_is_settled(autojump_clock):
    wires = MemoryNetwork()
    async with station(wires, ALICE) as alice, station(wires, BOB, settles=False) as bob:
        alice.say(BOB)
        await alice.messenger.quiet(60)
        assert alice.messenger.underway == 1
        assert len(bob.heard) == 1
        bob.messenger.settle(bob.heard[0])
        await alice.messenger.quiet(60)
        assert alice.messenger.underway == 0


async def test_a_message_is_given_up_when_its_purpose_is_over(autojump_clock):
    wires = MemoryNetwork()
    async with station(wires, ALICE) as alice:
        alice.say(BOB, for_seconds=20)
        await trio.sleep(30)
        assert alice.messenger.underway == 0
        async with station(wires, BOB) as bob:
            await trio.sleep(60)
            assert bob.heard == []


async def test_what_a_peer_missed_reaches_it_when_it_is_back(autojump_clock):
    wires = MemoryNetwork()
    async with station(wires, ALICE) as alice:
        alice.say(BOB)
        await trio.sleep(300)
        async with station(wires, BOB) as bob:
            await alice.messenger.quiet(5)
            assert len(bob.heard) == 1


async def test_who_cannot_be_reached_directly_gets_mail(autojump_clock, monkeypatch):
    """As behind a router that lets nobody in: gossip passes through others, direct streams do not."""
    wires = MemoryNetwork()
    async with station(wires, ALICE) as alice, station(wires, BOB) as bob, station(wires, CAROL) as carol:

        async def no_route(peer: PeerID, payload: bytes) -> None:
            raise PeerUnreachable(f"no route to {peer}")

        monkeypatch.setattr(alice.transport, "send", no_route)
        monkeypatch.setattr(bob.transport, "send", no_route)
        alice.say(BOB)
        await alice.messenger.quiet(30)
        assert [(a.author, a.message) for a in bob.heard] == [(ALICE, ACCEPTED)]
        assert (alice.messenger.underway, carol.heard) == (0, [])


async def test_a_message_to_oneself_takes_the_same_way(autojump_clock):
    async with station(MemoryNetwork(), ALICE, settles=False) as alice:
        alice.say(ALICE)
        assert [a.author for a in alice.heard] == [ALICE]
        assert alice.messenger.underway == 1
        alice.messenger.settle(alice.heard[0])
        assert alice.messenger.underway == 0


async def test_a_new_life_goes_on_with_what_the_old_one_had_under_way(autojump_clock):
    wires = MemoryNetwork()
    async with station(wires, BOB) as bob:
        async with station(wires, ALICE) as first:
            posted = first.messenger.compose(BOB, ACCEPTED, trio.current_time() + 100)
        async with station(wires, ALICE) as second:
            second.messenger.resume(
                [posted], [ProcessedMessage(BOB, MessageID(b"b" * 16), 0.0)], owner=second
            )
            await second.messenger.quiet(10)
            assert len(bob.heard) == 1
            # What the old life had dealt with is acknowledged and has no second effect.
            again = Envelope(id=MessageID(b"b" * 16), message=ACCEPTED, to=ALICE)
            await bob.transport.send(ALICE, encode_frame(again))
            await trio.sleep(1)
            assert second.heard == []


async def test_strangers_and_nonsense_are_counted_and_change_nothing(autojump_clock):
    wires = MemoryNetwork()
    async with station(wires, ALICE) as alice, wires.open(BOB) as mallory:
        to_carol = Envelope(id=MessageID(b"x" * 16), message=ACCEPTED, to=CAROL)
        closed = Envelope(id=MessageID(b"y" * 16), message=say.JobClosed(job_id="j"), to=ALICE)
        for frame in (b"", b"garbage", encode_frame(to_carol), encode_frame(closed)):
            await mallory.send(ALICE, frame)
        await mallory.broadcast("/bacalhau/1/test/jobs", b"\xff")
        direct = Envelope(id=MessageID(b"z" * 16), message=ACCEPTED)
        await mallory.broadcast("/bacalhau/1/test/jobs", encode_broadcast([direct]))
        await trio.sleep(1)
        assert alice.heard == []
        assert alice.messenger.counters["malformed"] == 3
        assert alice.messenger.counters["unheard"] == 3


async def test_a_flood_is_cut(autojump_clock):
    wires = MemoryNetwork(incoming_size=100_000)
    async with station(wires, ALICE) as alice, wires.open(BOB) as flooder:
        beat = encode_frame(Envelope(id=MessageID(b"x" * 16), message=say.Heartbeat(executions=()), to=ALICE))
        for _ in range(21_000):
            await flooder.send(ALICE, beat)
        await trio.sleep(1)
        assert len(alice.heard) == 20_000
        assert alice.messenger.counters["over_rate"] == 1_000


async def test_announcements_that_wait_travel_together(autojump_clock):
    wires = MemoryNetwork()
    async with station(wires, ALICE) as alice, wires.open(BOB) as watcher:
        await watcher.subscribe("/bacalhau/1/test/jobs")
        for number in range(100):
            alice.messenger.broadcast(say.JobClosed(job_id=f"j-{number}"))
        await trio.sleep(2)
        broadcasts = 0
        while watcher.incoming.statistics().current_buffer_used:
            broadcasts += type(await watcher.incoming.receive()).__name__ == "Broadcast"
        assert broadcasts == 1
