"""Broadcasts reach the subscribers and name their author; broadcasts that nobody reads are dropped."""

from __future__ import annotations

import trio

from bacalhau_p2p.errors import MessageTooLarge
from bacalhau_p2p.testing.transports.bench import (
    PATIENCE,
    TOPIC,
    OpenTransport,
    broadcast_until_received,
    expect,
    incompressible,
    open_connected,
    raises,
)
from bacalhau_p2p.transports.interface import MAX_BROADCAST, Broadcast, DirectFrame, Incoming


async def check_a_broadcast_names_its_author_not_its_forwarder(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport, 3) as (author, _, listener):
        received = await broadcast_until_received(author, listener, b"for everybody")
        assert received == Broadcast(author.peer_id, TOPIC, b"for everybody")


async def check_the_first_broadcast_after_peer_connected_arrives(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (author, listener):
        await author.broadcast(TOPIC, b"first")
        assert (await expect(listener, Broadcast)).payload == b"first"


async def check_only_subscribed_topics_arrive_and_no_own_broadcasts(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (author, listener):
        await author.broadcast(TOPIC + "-other", b"not subscribed")
        await author.broadcast(TOPIC, b"subscribed")
        assert (await expect(listener, Broadcast)).payload == b"subscribed"
        await listener.broadcast(TOPIC, b"answer")
        assert (await expect(author, Broadcast)).payload == b"answer"


async def check_a_subscription_applies_to_existing_connections(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (author, listener):
        topic = TOPIC + "-late"
        await author.subscribe(topic)
        await listener.subscribe(topic)
        received = await broadcast_until_received(author, listener, b"late", topic)
        assert received == Broadcast(author.peer_id, topic, b"late")


async def check_a_burst_of_broadcasts_arrives(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (author, listener):
        sent = [b"burst %d" % number for number in range(50)]
        for payload in sent:
            await author.broadcast(TOPIC, payload)
        received = [(await expect(listener, Broadcast)).payload for _ in sent]
        assert sorted(received) == sorted(sent)


async def check_the_largest_broadcast_arrives_and_a_larger_one_is_rejected(
    open_transport: OpenTransport,
) -> None:
    async with open_connected(open_transport) as (author, listener):
        payload = incompressible(MAX_BROADCAST)
        await author.broadcast(TOPIC, payload)
        assert (await expect(listener, Broadcast)).payload == payload
        with raises(MessageTooLarge):
            await author.broadcast(TOPIC, payload + b"x")


async def check_unread_broadcasts_are_dropped_and_counted(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (author, listener):
        with trio.fail_after(PATIENCE * 3):
            while not listener.counters.get("broadcasts_dropped"):
                for _ in range(100):
                    await author.broadcast(TOPIC, b"again")
                await trio.sleep(0.05)  # which lets them arrive
        with trio.fail_after(PATIENCE):
            while True:
                assert isinstance(await listener.incoming.receive(), Incoming)
                if not len(listener.incoming):
                    break
        await author.send(listener.peer_id, b"still there")
        assert (await expect(listener, DirectFrame)).payload == b"still there"
