"""The answering side, addressed in bytes: `server.py`."""

from __future__ import annotations

import cbor2
import pytest
import trio
from trio.testing import memory_stream_pair

from bacalhau_p2p.encoding.varint import encode_varint
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits
from bacalhau_p2p.ipfs.exchange.want_budget import WANT_BURST, WANTS_PER_SECOND
from bacalhau_p2p.ipfs.exchange.wire import (
    HOLDS_ALL,
    HOLDS_NOTHING,
    HOLDS_ROOT,
    MAX_WANTED,
    Answer,
    Operation,
    Request,
    Status,
    take_message,
)
from bacalhau_p2p.ipfs.format.car import header, section
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import PeerID
from tests.support.blocks.content_net import ALICE, Net
from tests.support.blocks.dag_makers import file_of

STRANGER = PeerID("stranger")
HELLO, OTHER = CID.of(RAW, b"hello\n"), CID.of(RAW, b"other")


async def converse(net: Net, data: bytes, *, end: bool = True) -> bytes:
    """What ALICE answers to these bytes."""
    near, far = memory_stream_pair()
    net.nursery.start_soon(net.handle, ALICE, STRANGER, far)
    try:
        await near.send_all(data)
        if end:
            await near.send_eof()
    except trio.BrokenResourceError:
        pass
    received = b""
    while piece := await near.receive_some(65536):
        received += piece
    return received


def message(body: object) -> bytes:
    payload = cbor2.dumps(body)
    return encode_varint(len(payload)) + payload


def answer_in(received: bytes) -> Answer:
    return Answer.decode(take_message(bytearray(received)) or b"")


async def test_requests_and_answers_are_those_of_the_documentation(net):
    net.peer(ALICE).put(HELLO, b"hello\n")
    have = message({"op": "have", "cid": HELLO.binary})
    get = message({"op": "get", "cid": HELLO.binary, "want": [HELLO.binary], "later": "ignored"})
    okay, missing = message({"status": "ok"}), message({"status": "missing"})
    assert await converse(net, have) == okay
    assert await converse(net, get) == okay + header([HELLO]) + section(HELLO, b"hello\n")
    assert await converse(net, message({"op": "have", "cid": OTHER.binary})) == missing
    assert await converse(net, message({"op": "get", "cid": OTHER.binary})) == missing
    refused = await converse(net, message({"op": "list", "cid": HELLO.binary}))
    assert answer_in(refused).status is Status.REFUSED


async def test_a_peer_with_a_part_of_a_dag_says_which(net):
    blocks, root, leaves = file_of(3, 1000)
    net.peer(ALICE, blocks, without=leaves[1:])

    async def have(*wanted: CID) -> Answer:
        request = Request(operation=Operation.HAVE, cid=root, wanted=wanted)
        return answer_in(await converse(net, request.encode()))

    assert await have() == Answer(status=Status.MISSING, holds=bytes((HOLDS_ROOT,)))
    assert await have(*leaves[:2]) == Answer(status=Status.MISSING, holds=bytes((HOLDS_ALL, HOLDS_NOTHING)))
    assert await have(leaves[0]) == Answer(status=Status.OK, holds=bytes((HOLDS_ALL,)))


async def test_a_flat_request_gets_the_named_blocks_alone(net):
    blocks, root, leaves = file_of(3, 1000)
    net.peer(ALICE, blocks)
    request = Request(operation=Operation.GET, cid=root, wanted=(root, leaves[1], root), flat=True)
    assert await converse(net, request.encode()) == (
        Answer(status=Status.OK).encode()
        + header([root, leaves[1], root])
        + b"".join(section(cid, blocks.blocks[cid]) for cid in (root, leaves[1]))
    )


async def test_a_missing_block_ends_the_stream_after_the_blocks_before_it(net):
    blocks, root, leaves = file_of(3, 1000)
    net.peer(ALICE, blocks, without=leaves[2:])
    received = await converse(net, Request(operation=Operation.GET, cid=root).encode())
    assert received == (
        Answer(status=Status.OK).encode()
        + header([root])
        + b"".join(section(cid, blocks.blocks[cid]) for cid in (root, *leaves[:2]))
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 20,
        encode_varint(10_000_000),
        message([]),
        message({"op": "have"}),
        message({"op": "have", "cid": "text"}),
        message({"op": "have", "cid": b"junk"}),
        message({"op": 1, "cid": HELLO.binary}),
        message({"op": "get", "cid": HELLO.binary, "want": [1]}),
        message({"op": "get", "cid": HELLO.binary, "want": [HELLO.binary] * 1001}),
        b"\x02\xa0\xa0",
        b"\x06\xd8\x23\x64(a+)",
        b"\x02\xbf\xff",
        b"\x05\xa2\x61a\x01\x61",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_malformed_request_is_a_fault_of_the_peer_and_serving_continues(net, data):
    net.peer(ALICE).put(HELLO, b"hello\n")
    assert await converse(net, data) == b""
    assert [type(fault) for fault in net.faults] == [RemoteProtocolError]
    request = Request(operation=Operation.HAVE, cid=HELLO)
    assert answer_in(await converse(net, request.encode())).status is Status.OK


async def test_a_peer_with_too_many_requests_is_answered_busy(net):
    net.peer(ALICE, limits=ExchangeLimits(requests_per_peer=2))
    request = Request(operation=Operation.HAVE, cid=HELLO).encode()
    idle = []
    for _ in range(2):
        near, far = memory_stream_pair()
        net.nursery.start_soon(net.handle, ALICE, STRANGER, far)
        idle.append(near)
    await trio.testing.wait_all_tasks_blocked()
    assert answer_in(await converse(net, request)).status is Status.BUSY
    for near in idle:
        await near.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert answer_in(await converse(net, request)).status is Status.MISSING


async def test_a_peer_that_sends_nothing_is_given_up_after_the_idle_timeout(net, autojump_clock):
    net.peer(ALICE, limits=ExchangeLimits(idle=7))
    began = trio.current_time()
    assert await converse(net, b"", end=False) == b""
    assert trio.current_time() - began == 7
    assert [type(fault) for fault in net.faults] == [trio.TooSlowError]


async def test_a_peer_that_asks_about_too_many_blocks_is_answered_slowly(net, autojump_clock):
    net.peer(ALICE)
    wanted = tuple(CID.of(RAW, b"%d" % number) for number in range(MAX_WANTED))
    request = Request(operation=Operation.HAVE, cid=wanted[0], wanted=wanted).encode()
    began = trio.current_time()
    requests = 2 * WANT_BURST // MAX_WANTED
    for _ in range(requests):
        await converse(net, request)
    late = (requests - 1) * MAX_WANTED - WANT_BURST
    assert trio.current_time() - began >= late / WANTS_PER_SECOND > 1
