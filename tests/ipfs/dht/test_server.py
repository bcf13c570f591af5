"""Requests from peers that lie, send garbage, stay silent or ask too much."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from bacalhau_p2p.ipfs.dht.limits import (
    IDLE_TIMEOUT,
    SLOT_TIMEOUT,
    STREAMS_PER_PEER,
    WAITING_STREAMS_PER_PEER,
)
from bacalhau_p2p.ipfs.dht.server import MESSAGE_BURST, MESSAGES_PER_SECOND
from bacalhau_p2p.ipfs.dht.wire import Contact, Message, MessageType, key_of, take_message
from tests.support.networks.dht_net import PROTOCOL, DhtNet, cid, identity, opened

PING = Message(type=MessageType.PING).encode()


async def test_a_peer_can_announce_only_itself(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        key = key_of(cid(1))
        contacts = (Contact(identity(9).peer_id, ("/memory/1",)), Contact(net.transports[1].peer_id))
        message = Message(type=MessageType.ADD_PROVIDER, key=key, providers=contacts)
        assert await net.converse(message.encode()) == b""
        assert [contact.peer for contact in net.nodes[0].records.get(key, 0)] == [net.transports[1].peer_id]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 50,
        b"\xff\xff\xff\x7f",
        b"\x03abc",
        Message(type=MessageType.PUT_VALUE, key=b"k").encode(),
        b"\x02\x08\x04",
    ],
    ids=["garbage", "length", "protobuf", "value", "no key"],
)
async def test_an_invalid_message_resets_its_stream_and_nothing_else(autojump_clock, data):
    async with opened(2, [(0, 1)]) as net:
        await net.converse(data)
        answer = await net.converse(PING)
        assert Message.decode(take_message(bytearray(answer)) or b"") == Message(type=MessageType.PING)
        assert net.transports[0].counters["handler_faults"] == 1


async def open_incomplete_streams(net: DhtNet, count: int) -> list:
    """Open streams from node 1 to node 0, each with the first byte of a message and no more."""
    streams = []
    for _ in range(count):
        streams.append(await net.transports[1].open_stream(net.transports[0].peer_id, PROTOCOL))
        with suppress(trio.BrokenResourceError):  # streams beyond the limit are reset
            await streams[-1].send_all(b"\x05")
    return streams


async def test_incomplete_streams_of_one_peer_do_not_block_another(autojump_clock):
    async with opened(3, [(0, 1), (2, 0)]) as net:
        await open_incomplete_streams(net, STREAMS_PER_PEER + WAITING_STREAMS_PER_PEER + 8)
        await net.provide(2, cid(1))
        assert len(net.nodes[0].records) == 1


async def test_streams_wait_for_a_slot_as_long_as_the_asking_peer_waits_for_an_answer(autojump_clock):
    async with opened(2, [(0, 1)]) as net:

        def faults() -> int:
            return net.transports[0].counters.get("handler_faults", 0)

        await open_incomplete_streams(net, STREAMS_PER_PEER + WAITING_STREAMS_PER_PEER)
        await trio.sleep(SLOT_TIMEOUT / 2)
        assert faults() == 0
        await open_incomplete_streams(net, 5)  # beyond the limit
        await trio.sleep(0.1)
        assert faults() == 5
        await trio.sleep(SLOT_TIMEOUT)
        assert faults() == 5 + WAITING_STREAMS_PER_PEER
        await trio.sleep(IDLE_TIMEOUT)
        assert faults() == 5 + WAITING_STREAMS_PER_PEER + STREAMS_PER_PEER
        assert await net.converse(PING) == PING


async def test_a_burst_of_streams_of_one_peer_is_answered(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        answers = []

        async def ask() -> None:
            answers.append(await net.converse(PING))

        async with trio.open_nursery() as nursery:
            for _ in range(STREAMS_PER_PEER + WAITING_STREAMS_PER_PEER):
                nursery.start_soon(ask)
        assert answers == [PING] * (STREAMS_PER_PEER + WAITING_STREAMS_PER_PEER)


async def test_messages_of_one_peer_are_limited_to_a_burst_and_a_rate(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        assert len(await net.converse(PING * (MESSAGE_BURST + 1000))) <= MESSAGE_BURST * len(PING)
        await trio.sleep(1)
        assert len(await net.converse(PING * MESSAGES_PER_SECOND)) == MESSAGES_PER_SECOND * len(PING)
        await net.converse(PING * 2)
        assert net.transports[0].counters["handler_faults"] == 2
