"""One DAG from several providers at once: `fetch_round.py` and `providers.py`.

Streams have a rate, and the clock jumps: a provider that sends 4 MB/s takes 0.025 s for each leaf of 100 kB.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import memory_stream_pair

from bacalhau_p2p.errors import ContentNotFound, InvalidContent, PeerUnreachable
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import PROTOCOL as BITSWAP_PROTOCOL
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import Bitswap
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits, Sources
from bacalhau_p2p.ipfs.exchange.scheduler import STALL_TIMEOUT
from bacalhau_p2p.ipfs.exchange.wire import Answer, Operation, Status
from bacalhau_p2p.ipfs.format.car import header, section
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import PeerID
from tests.support.blocks.content_net import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    MeteredStream,
    intercept,
    lying,
    meter,
    receive_request,
    trickling,
)
from tests.support.blocks.dag_makers import MemoryBlocks, file_of
from tests.support.blocks.inline_threads import InlineThreads

RATE = 4_000_000
"""Bytes that a provider sends in a second."""


async def test_one_provider_gets_one_request(net):
    blocks, root, _ = file_of(40, 100_000)
    net.peer(ALICE), net.peer(BOB, blocks)
    await net.fetch(ALICE, root, [BOB])
    assert net.opened[BOB] == 2  # a question and a transfer


async def test_two_providers_with_half_of_a_dag_each_complete_it(net, autojump_clock):
    blocks, root, leaves = file_of(60, 20_000)  # so large that each leaf is read when it is sent
    taker = net.peer(ALICE)
    net.peer(BOB, blocks, without=leaves[1::2]), net.peer(CAROL, blocks, without=leaves[0::2])
    even, odd = net.count_reads(BOB), net.count_reads(CAROL)
    await net.fetch(ALICE, root, [BOB, CAROL])
    assert taker.has_all(root)
    assert all(even[leaf] for leaf in leaves[0::2])
    assert all(odd[leaf] for leaf in leaves[1::2])
    assert net.opened[BOB] + net.opened[CAROL] < 20


@pytest.mark.parametrize("half", [300, 900])
async def test_a_provider_is_not_given_up_for_the_many_parts_that_it_lacks(net, autojump_clock, half):
    blocks, root, leaves = file_of(2 * half, 100)
    taker = net.peer(ALICE)
    net.peer(BOB, blocks, without=leaves[half:]), net.peer(CAROL, blocks, without=leaves[:half])
    await net.fetch(ALICE, root, [BOB, CAROL])
    assert taker.has_all(root)


async def test_what_two_providers_lack_together_stays_missing(net, autojump_clock):
    blocks, root, leaves = file_of(20, 3000)
    net.peer(ALICE)
    net.peer(BOB, blocks, without=leaves[5:]), net.peer(CAROL, blocks, without=leaves[:6])
    with pytest.raises(ContentNotFound, match="asked 2 peers; 2 peers with parts of it"):
        await net.fetch(ALICE, root, [BOB, CAROL])
    assert net.stores[ALICE].dag_stat(root).missing == (leaves[5],)


async def test_three_providers_share_the_work_and_send_little_twice(net, autojump_clock):
    blocks, root, _ = file_of(160, 100_000)
    taker = net.peer(ALICE)
    streams = {}
    for peer in (BOB, CAROL, DAVE):
        net.peer(peer, blocks)
        streams[peer] = meter(net, peer, rate=RATE)
    began = trio.current_time()
    await net.fetch(ALICE, root, [BOB, CAROL, DAVE])
    assert taker.has_all(root)
    assert trio.current_time() - began < 16_000_000 / RATE / 2  # one provider alone takes four seconds
    sent = {peer: sum(stream.sent for stream in streams[peer]) for peer in streams}
    assert min(sent.values()) > 16_000_000 / 6
    assert sum(sent.values()) < 16_000_000 * 1.35  # including what is in flight when a stream is closed


async def test_a_peer_that_does_not_know_flat_requests_sends_its_parts(net, autojump_clock):
    blocks, files = MemoryBlocks(), []
    for number in range(6):
        part, file, _ = file_of(5, 20_000 + number)
        blocks.blocks |= part.blocks
        files.append(file)
    root = blocks.folder([(b"%d" % number, file) for number, file in enumerate(files)])
    taker = net.peer(ALICE)
    net.peer(BOB, blocks, without=files[:3]), net.peer(CAROL, blocks, without=files[3:])
    requests = [intercept(net, peer, lambda request: replace(request, flat=False)) for peer in (BOB, CAROL)]
    await net.fetch(ALICE, root, [BOB, CAROL])
    assert taker.has_all(root)
    assert any(request.flat for peer in requests for request in peer)


async def test_a_provider_that_stalls_delays_the_fetch_by_seconds_only(net, autojump_clock):
    blocks, root, _ = file_of(100, 100_000)
    taker = net.peer(ALICE, limits=ExchangeLimits(idle=60))
    net.peer(BOB, blocks), net.peer(CAROL, blocks)
    meter(net, BOB, rate=RATE, stall_after=3_000_000)
    meter(net, CAROL, rate=RATE)
    began = trio.current_time()
    await net.fetch(ALICE, root, [BOB, CAROL])
    assert taker.has_all(root)
    assert trio.current_time() - began < 10_000_000 / RATE + 2 * STALL_TIMEOUT


@pytest.mark.parametrize("every", [0.9, 14.0, float("inf")])
@pytest.mark.parametrize("leaves", [1, 40])
@pytest.mark.parametrize(("liars", "seconds"), [(1, 1.5), (2, 2.5), (20, 6.0)])
async def test_peers_that_claim_content_and_trickle_delay_a_fetch_by_seconds_only(
    net, autojump_clock, liars, seconds, leaves, every
):
    blocks, root, _ = file_of(leaves, 100_000)
    taker = net.peer(ALICE)
    net.peer(BOB, blocks)
    names = [PeerID(f"liar {number}") for number in range(liars)]
    net.handlers |= dict.fromkeys(names, trickling(every))
    began = trio.current_time()
    await net.fetch(ALICE, root, [*names, BOB])
    assert taker.has_all(root)
    assert trio.current_time() - began < seconds


async def test_another_provider_sends_the_rest_of_one_that_disconnects(net, autojump_clock):
    blocks, root, _ = file_of(100, 100_000)
    taker = net.peer(ALICE)
    net.peer(BOB, blocks), net.peer(CAROL, blocks)
    serve = net.handlers[BOB]

    async def disconnect(peer, stream):
        with trio.move_on_after(0.3):
            await serve(peer, MeteredStream(stream, RATE, float("inf")))
        net.handlers.pop(BOB, None)

    net.handlers[BOB] = disconnect
    meter(net, CAROL, rate=RATE)
    await net.fetch(ALICE, root, [BOB, CAROL])
    assert taker.has_all(root)


async def test_a_liar_is_asked_for_blocks_only_once_and_the_others_send_them(net, autojump_clock):
    blocks, root, _ = file_of(100, 100_000)
    taker = net.peer(ALICE)
    for peer in (CAROL, DAVE):
        net.peer(peer, blocks)
        meter(net, peer, rate=RATE)
    lies, unsolicited = [], CID.of(RAW, b"unsolicited")

    async def lie(peer, stream):
        request = await receive_request(stream)
        await stream.send_all(Answer(status=Status.OK).encode())
        if request.operation is Operation.GET:
            wanted = request.wanted[0]
            lies.append(wanted)
            await stream.send_all(header([wanted]) + section(wanted, blocks.blocks[wanted]))
            await stream.send_all(section(unsolicited, b"unsolicited"))
        await stream.send_eof()

    net.handlers[BOB] = lie
    await net.fetch(ALICE, root, [BOB, CAROL, DAVE])
    assert taker.has_all(root)
    assert not taker.has(unsolicited)
    assert len(lies) == 1


async def test_when_all_providers_lie_one_of_them_is_named(net, autojump_clock):
    _, root, _ = file_of(3, 100_000)
    net.peer(ALICE)
    net.handlers[BOB] = net.handlers[CAROL] = lying(header([root]) + section(root, b"lie"))
    with pytest.raises(InvalidContent, match=r"peer (bob|carol) sent invalid data.*does not match its hash"):
        await net.fetch(ALICE, root, [BOB, CAROL])


async def test_a_peer_that_speaks_only_bitswap_sends_its_part(net, autojump_clock):
    blocks, root, leaves = file_of(40, 20_000)
    taker = net.peer(ALICE)
    net.peer(BOB, blocks, without=leaves[0::2]), net.peer(CAROL, blocks, without=leaves[1::2])
    sent = net.count_reads(CAROL)
    bitswaps: dict[PeerID, Bitswap] = {}

    def opener(name: PeerID):
        async def open_stream(to: PeerID, protocol: str):
            if protocol != BITSWAP_PROTOCOL:
                if to == CAROL:
                    raise PeerUnreachable(f"{to} does not speak {protocol}")
                return await net.open_stream(name, to)
            near, far = memory_stream_pair()
            net.nursery.start_soon(bitswaps[to].serve, name, far)
            return near

        return open_stream

    for name in (ALICE, CAROL):
        bitswaps[name] = Bitswap(net.stores[name], opener(name), threads=InlineThreads())
    exchange = Exchange(taker, opener(ALICE), threads=InlineThreads(), fallback=bitswaps[ALICE])
    await exchange.fetch(root, Sources(peers=[BOB, CAROL]))
    assert taker.has_all(root)
    assert all(sent[leaf] for leaf in leaves[0::2])
