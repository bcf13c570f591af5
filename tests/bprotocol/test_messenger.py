"""bprotocol over a transport: every message arrives, and has an effect once."""

from __future__ import annotations

from random import Random

import pytest
import trio

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, encode_frame
from bacalhau_p2p.bprotocol.delivery import MAX_WAITING_ACKS, ProcessedMessage
from bacalhau_p2p.bprotocol.messages import KINDS, BidAccepted, JobClosed
from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.memory.links import LinkConditions
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.support.peers.messengers import ACCEPTED, ALICE, BOB, CAROL, open_messenger


async def test_a_message_arrives_once_and_is_acknowledged(autojump_clock):
    network = MemoryNetwork()
    async with open_messenger(network, ALICE) as alice, open_messenger(network, BOB) as bob:
        alice.dispatch(BOB)
        await alice.messenger.wait_acknowledged(10)
        assert [(a.author, a.message) for a in bob.received] == [(ALICE, ACCEPTED)]
        assert alice.messenger.in_flight == 0
        assert len(alice.messenger.take_finished(alice)) == 1


@pytest.mark.parametrize("seed", range(5))
async def test_on_bad_links_every_message_still_arrives_once(autojump_clock, seed):
    network = MemoryNetwork(random=Random(seed))
    network.set_conditions(LinkConditions(loss=0.4, repetition=0.3, reordering=0.5, jitter=0.3))
    async with open_messenger(network, ALICE) as alice, open_messenger(network, BOB) as bob:
        sent = [BidAccepted(job_id="j", execution_id=f"e-{n}") for n in range(30)]
        for message in sent:
            alice.dispatch(BOB, message)
        await alice.messenger.wait_acknowledged(3600)
        assert sorted(a.message.execution_id for a in bob.received) == sorted(m.execution_id for m in sent)


async def test_a_message_is_not_acknowledged_before_it_is_processed(autojump_clock):
    network = MemoryNetwork()
    async with open_messenger(network, ALICE) as alice, open_messenger(network, BOB, processes=False) as bob:
        alice.dispatch(BOB)
        await alice.messenger.wait_acknowledged(60)
        assert alice.messenger.in_flight == 1
        assert len(bob.received) == 1
        bob.messenger.mark_processed(bob.received[0])
        await alice.messenger.wait_acknowledged(60)
        assert alice.messenger.in_flight == 0


async def test_an_expired_message_is_not_sent_again(autojump_clock):
    network = MemoryNetwork()
    async with open_messenger(network, ALICE) as alice:
        alice.dispatch(BOB, lifetime=20)
        await trio.sleep(30)
        assert alice.messenger.in_flight == 0
        async with open_messenger(network, BOB) as bob:
            await trio.sleep(60)
            assert bob.received == []


async def test_a_peer_that_reconnects_gets_what_it_missed(autojump_clock):
    network = MemoryNetwork()
    async with open_messenger(network, ALICE) as alice:
        alice.dispatch(BOB)
        await trio.sleep(300)
        async with open_messenger(network, BOB) as bob:
            await alice.messenger.wait_acknowledged(5)
            assert len(bob.received) == 1


async def test_a_peer_without_a_direct_route_gets_mail(autojump_clock, monkeypatch):
    """As behind a router that blocks inbound connections: gossip arrives through others, streams do not."""
    network = MemoryNetwork()
    async with (
        open_messenger(network, ALICE) as alice,
        open_messenger(network, BOB) as bob,
        open_messenger(network, CAROL) as carol,
    ):

        async def no_route(peer: PeerID, *payloads: bytes) -> None:
            raise PeerUnreachable(f"no route to {peer}")

        for peer in (alice, bob):
            monkeypatch.setattr(peer.transport, "send", no_route)
            monkeypatch.setattr(peer.transport, "send_now", lambda peer, *payloads: False)
        alice.dispatch(BOB)
        await alice.messenger.wait_acknowledged(30)
        assert [(a.author, a.message) for a in bob.received] == [(ALICE, ACCEPTED)]
        assert (alice.messenger.in_flight, carol.received) == (0, [])
        assert alice.messenger.counters["mailed"] == 1


async def test_a_message_to_the_node_itself_is_delivered_like_any_other(autojump_clock):
    async with open_messenger(MemoryNetwork(), ALICE, processes=False) as alice:
        alice.dispatch(ALICE)
        assert [a.author for a in alice.received] == [ALICE]
        assert alice.messenger.in_flight == 1
        alice.messenger.mark_processed(alice.received[0])
        assert alice.messenger.in_flight == 0


async def test_waiting_for_acknowledgements_ends_when_the_node_itself_acknowledges(autojump_clock):
    async with open_messenger(MemoryNetwork(), ALICE, processes=False) as alice:
        alice.dispatch(ALICE)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.messenger.wait_acknowledged, 1000)
            await trio.sleep(0.1)
            alice.messenger.mark_processed(alice.received[0])
        assert trio.current_time() - start < 1


async def test_delivery_continues_after_a_restart(autojump_clock):
    network = MemoryNetwork()
    async with open_messenger(network, BOB) as bob:
        async with open_messenger(network, ALICE) as first:
            stored = first.messenger.compose(BOB, ACCEPTED, trio.current_time() + 100)
        async with open_messenger(network, ALICE) as second:
            processed = ProcessedMessage(BOB, MessageID(b"b" * 16), 0.0)
            second.messenger.resume([stored], [processed], owner=second)
            await second.messenger.wait_acknowledged(10)
            assert len(bob.received) == 1
            # A repeat of what was processed before the restart is acknowledged and has no second effect.
            again = Envelope(id=MessageID(b"b" * 16), message=ACCEPTED, to=ALICE)
            await bob.transport.send(ALICE, encode_frame(again))
            await trio.sleep(1)
            assert second.received == []


async def test_dispatching_after_the_messenger_stopped_is_harmless(autojump_clock):
    """Components make their last commit, and dispatch what is in it, while the node stops."""
    network = MemoryNetwork()
    async with open_messenger(network, ALICE) as alice:
        pass
    alice.dispatch(BOB)
    assert alice.messenger.in_flight == 1


async def test_messages_announced_to_everybody_reach_the_node_itself(autojump_clock):
    network = MemoryNetwork()
    async with open_messenger(network, ALICE) as alice, open_messenger(network, BOB) as bob:
        alice.messenger.broadcast(JobClosed(job_id="j"))
        await trio.sleep(1)
        assert [a.message for a in alice.received] == [a.message for a in bob.received]
        assert len(alice.received) == 1


async def test_a_peer_that_stops_reading_gets_its_acknowledgements_in_several_frames(
    autojump_clock, monkeypatch
):
    """30,005 ids did not fit into one `ack`, which ended the node."""
    network = MemoryNetwork()
    async with open_messenger(network, ALICE) as alice, open_messenger(network, BOB) as bob:
        reads_again = trio.Event()
        send = alice.transport.send

        async def stuck(peer: PeerID, *payloads: bytes) -> None:
            await reads_again.wait()
            await send(peer, *payloads)

        monkeypatch.setattr(alice.transport, "send_now", lambda peer, *payloads: False)
        monkeypatch.setattr(alice.transport, "send", stuck)
        alice.dispatch(BOB)
        await trio.sleep(0.1)
        for number in range(30_005):
            message = BidAccepted(job_id="j", execution_id=f"e-{number}")
            envelope = Envelope(id=MessageID(number.to_bytes(16, "big")), message=message, to=ALICE)
            alice.messenger._inbox.receive_envelope(BOB, envelope)
        acknowledged = []
        monkeypatch.setattr(bob.messenger._delivery, "acknowledged", lambda _, ids: acknowledged.extend(ids))
        await trio.sleep(1)
        reads_again.set()
        await trio.sleep(5)
        assert len(set(acknowledged)) >= MAX_WAITING_ACKS
        assert len(alice.received) == 30_005


async def test_a_sender_of_what_cannot_be_read_stops_repeating(autojump_clock, monkeypatch):
    network = MemoryNetwork()
    async with open_messenger(network, ALICE) as alice, open_messenger(network, BOB) as bob:
        monkeypatch.delitem(KINDS, "bid_accepted")  # as for a version that does not know this kind
        alice.dispatch(BOB)
        await trio.sleep(5)
        assert alice.messenger.in_flight == 0
        assert alice.messenger.counters["refused_by_peer"] == 1
        assert bob.received == []
