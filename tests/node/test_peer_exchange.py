"""What a newcomer learns from a peer, and what a hostile peer can make of it."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import cbor2
import pytest
import trio

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.node.peer_exchange import MAX_PEERS, PROTOCOL, TIMEOUT, PeerExchange
from bacalhau_p2p.transports.memory.network import MemoryNetwork

PEERS = [Identity.generate().peer_id for _ in range(MAX_PEERS + 8)]
KNOWN = {peer: (f"/ip4/192.0.2.1/tcp/{number}/p2p/{peer}",) for number, peer in enumerate(PEERS, 1)}


@asynccontextmanager
async def exchanging(known):
    network = MemoryNetwork()
    async with network.open(Identity.generate()) as one, network.open(Identity.generate()) as other:
        PeerExchange(other, lambda: known, random.Random(1))
        yield PeerExchange(one, dict, random.Random(2)), other


async def test_a_peer_names_some_of_those_that_it_knows(autojump_clock):
    async with exchanging(dict(list(KNOWN.items())[:3])) as (asking, other):
        assert await asking.ask(other.peer_id) == dict(list(KNOWN.items())[:3])
    async with exchanging(KNOWN) as (asking, other):
        answer = await asking.ask(other.peer_id)
        assert len(answer) == MAX_PEERS
        assert answer.items() <= KNOWN.items()


async def test_who_asks_is_not_named_to_itself(autojump_clock):
    known = {}
    async with exchanging(known) as (asking, other):
        own = asking._transport.peer_id
        known[own] = (f"/ip4/192.0.2.1/tcp/1/p2p/{own}",)
        assert await asking.ask(other.peer_id) == {}


@pytest.mark.parametrize(
    ("answer", "learnt"),
    [
        (b"garbage", {}),
        (b"", {}),
        (cbor2.dumps({"a": 1}), {}),
        (cbor2.dumps([["/ip4/192.0.2.1/tcp/1"], [], [1], 7, [PEERS[0]]]), {}),
        (cbor2.dumps([["x" * 300 + f"/p2p/{PEERS[0]}"]]), {}),
        (b"\x00" * 100_000, {}),
        (cbor2.dumps([[KNOWN[PEERS[0]][0], KNOWN[PEERS[1]][0]]]), {PEERS[0]: KNOWN[PEERS[0]]}),
    ],
    ids=["garbage", "empty", "map", "items", "long", "large", "another-peer"],
)
async def test_a_hostile_answer_teaches_nothing_but_addresses(autojump_clock, answer, learnt):
    async def lie(peer, stream):
        await stream.send_all(answer)

    async with exchanging({}) as (asking, other):
        other.handle_streams(PROTOCOL, lie)
        assert await asking.ask(other.peer_id) == learnt


async def test_a_peer_that_does_not_answer_is_not_waited_for(autojump_clock):
    async def silent(peer, stream):
        await trio.sleep_forever()

    async with exchanging({}) as (asking, other):
        other.handle_streams(PROTOCOL, silent)
        with trio.fail_after(TIMEOUT + 1):
            assert await asking.ask(other.peer_id) == {}
