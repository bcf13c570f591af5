"""Requests to peers that are slow or busy: `requests.py` and `faults.py`."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits
from bacalhau_p2p.ipfs.exchange.requests import BUSY_RETRY_DELAYS
from bacalhau_p2p.ipfs.exchange.wire import Answer, Operation, Status
from bacalhau_p2p.ipfs.format.car import header, section
from tests.support.blocks.content_net import ALICE, BOB, CAROL, answering, receive_request
from tests.support.blocks.dag_makers import MemoryBlocks, file_of


async def test_a_peer_that_stalls_is_given_up_after_the_idle_timeout(net, autojump_clock):
    blocks, root, _ = file_of(3, 100)
    net.peer(ALICE, limits=ExchangeLimits(idle=7))

    async def stall(peer, stream):
        request = await receive_request(stream)
        await stream.send_all(Answer(status=Status.OK).encode())
        if request.operation is Operation.GET:
            await trio.sleep_forever()
        await stream.send_eof()

    net.handlers[BOB] = stall
    began = trio.current_time()
    with pytest.raises(ContentNotFound, match=rf"cannot fetch {root} from peer bob: no data for 7 s"):
        await net.fetch(ALICE, root, [BOB])
    assert trio.current_time() - began == pytest.approx(7)
    net.peer(CAROL, blocks)
    await net.fetch(ALICE, root, [BOB, CAROL])
    assert net.stores[ALICE].has_all(root)


@pytest.mark.parametrize("busy", [1, 3])
async def test_a_busy_peer_is_asked_again(net, autojump_clock, busy):
    blocks, root, _ = file_of(3, 100)
    net.peer(ALICE), net.peer(BOB, blocks)
    serve, requests = net.handlers[BOB], []

    async def serve_later(peer, stream):
        requests.append(stream)
        await (answering(Status.BUSY) if len(requests) <= busy else serve)(peer, stream)

    net.handlers[BOB] = serve_later
    began = trio.current_time()
    await net.fetch(ALICE, root, [BOB])
    assert trio.current_time() - began == pytest.approx(sum(BUSY_RETRY_DELAYS[:busy]))
    assert net.stores[ALICE].has_all(root)


async def test_a_question_does_not_wait_behind_transfers(net):
    blocks = MemoryBlocks()
    first, second = blocks.raw(b"first"), blocks.raw(b"second")
    alice = net.peer(ALICE, limits=ExchangeLimits(requests_to_peer=1))
    second_asked, events = trio.Event(), []

    async def serve(peer, stream):
        request = await receive_request(stream)
        if request.operation is Operation.GET:
            await second_asked.wait()
        elif request.cid == second:
            second_asked.set()
        events.append((request.operation, request.cid))
        await stream.send_all(Answer(status=Status.OK).encode())
        if request.operation is Operation.GET:
            await stream.send_all(header([request.cid]) + section(request.cid, blocks.blocks[request.cid]))
        await stream.send_eof()

    net.handlers[BOB] = serve
    async with trio.open_nursery() as nursery:
        nursery.start_soon(net.fetch, ALICE, first, [BOB])
        nursery.start_soon(net.fetch, ALICE, second, [BOB])
    assert set(events[:2]) == {(Operation.HAVE, first), (Operation.HAVE, second)}
    assert alice.has(first)
    assert alice.has(second)


async def test_more_requests_than_a_peer_may_get_wait_for_each_other(net):
    blocks = MemoryBlocks()
    cids = [blocks.raw(b"%d" % number) for number in range(30)]
    net.peer(ALICE, limits=ExchangeLimits(requests_to_peer=2))
    net.peer(BOB, blocks, limits=ExchangeLimits(requests_per_peer=4))
    serve, active, most = net.handlers[BOB], 0, 0

    async def counted(peer, stream):
        nonlocal active, most
        active += 1
        most = max(most, active)
        await serve(peer, stream)
        active -= 1

    net.handlers[BOB] = counted
    async with trio.open_nursery() as nursery:
        for cid in cids:
            nursery.start_soon(net.fetch, ALICE, cid, [BOB])
    assert all(net.stores[ALICE].has(cid) for cid in cids)
    assert most == 4  # two questions and two transfers
