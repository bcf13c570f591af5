"""Serving peers: `bitswap.py`, `responder.py`, `streams.py` and `pending_wants.py`."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import (
    MAX_WAITING_WANTS,
    PROTOCOL,
    STREAMS_PER_PEER,
    Bitswap,
)
from bacalhau_p2p.ipfs.exchange.bitswap.wire import Message, Want, take_message
from bacalhau_p2p.ipfs.exchange.want_budget import WANT_BURST, WANTS_PER_SECOND
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from tests.support.blocks.bitswap_net import ALICE, BOB
from tests.support.blocks.dag_makers import MemoryBlocks
from tests.support.blocks.inline_threads import InlineThreads

FAR = CID.of(RAW, b"nowhere")
DATA = b"a block"
CID_OF_DATA = CID.of(RAW, DATA)


async def test_an_answer_stays_open_until_its_reader_has_finished(net):
    net.stores[ALICE].put(CID_OF_DATA, DATA)
    finished = trio.Event()

    async def read_slowly(peer, stream):
        answer = b""
        while piece := await stream.receive_some():
            answer += piece
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"still there?")  # fails when the other end is closed
        body = take_message(bytearray(answer))
        assert body is not None
        assert Message.decode(body).blocks == [(CID_OF_DATA, DATA)]
        finished.set()

    net.handlers[BOB] = read_slowly
    async with await net.opener(BOB)(ALICE, PROTOCOL) as stream:
        await stream.send_all(Message(wants=[Want(cid=CID_OF_DATA)]).encode())
        await stream.send_eof()
        await finished.wait()


async def test_unsolicited_blocks_are_not_stored(net):
    async with await net.opener(ALICE)(BOB, PROTOCOL) as stream:
        await stream.send_all(Message(blocks=[(CID_OF_DATA, DATA)]).encode())
        await stream.send_all(Message(wants=[Want(cid=FAR, send_dont_have=True)]).encode())
        await stream.send_eof()
        await stream.receive_some()
    assert not net.stores[BOB].has(CID_OF_DATA)


async def test_a_malformed_message_is_a_fault_of_the_peer(net):
    async with await net.opener(ALICE)(BOB, PROTOCOL) as stream:
        await stream.send_all(b"\x02\xff\xff")
        assert await stream.receive_some() == b""
    assert [type(fault) for fault in net.faults] == [RemoteProtocolError]


class CountingStream:
    """Counts the bytes that are read from a stream."""

    def __init__(self, stream) -> None:
        self.stream, self.read = stream, 0

    async def receive_some(self, most: int) -> bytes:
        data = await self.stream.receive_some(most)
        self.read += len(data)
        return data


async def test_a_peer_with_too_many_waiting_wants_is_not_read_any_further(net, nursery):
    async def stuck(peer, protocol):
        await trio.sleep_forever()

    near, far = memory_stream_pair()
    stream = CountingStream(far)
    nursery.start_soon(Bitswap(net.stores[BOB], stuck, threads=InlineThreads()).serve, ALICE, stream)
    absent = [CID.of(RAW, b"%d" % number) for number in range(1000)]
    message = Message(wants=[Want(cid=cid, send_dont_have=True) for cid in absent]).encode()
    for _ in range(50):
        await near.send_all(message)
    await trio.testing.wait_all_tasks_blocked()
    wants_read = stream.read / len(message) * 1000
    assert MAX_WAITING_WANTS <= wants_read < MAX_WAITING_WANTS + 10_000  # one read has at most 256 KiB


async def test_a_peer_may_answer_on_many_streams_as_kubo_does(net):
    blocks = MemoryBlocks()
    root = blocks.folder([(b"%d" % number, blocks.raw(b"%d" % number)) for number in range(9)])

    async def serve(peer, stream):
        buffer = bytearray()
        while data := await stream.receive_some():
            buffer += data
            while (body := take_message(buffer)) is not None:
                for want in Message.decode(body).wants:
                    answer = await net.opener(ALICE)(BOB, PROTOCOL)  # it stays open
                    await answer.send_all(Message(blocks=[(want.cid, blocks.blocks[want.cid])]).encode())

    net.handlers[ALICE] = serve
    await net.bitswaps[BOB].fetch(ALICE, root)
    assert net.stores[BOB].has_all(root)
    assert net.faults == []


async def test_streams_beyond_the_limit_wait_for_their_turn(net):
    net.stores[BOB].put(CID_OF_DATA, DATA)
    answers = []

    async def record(peer, stream):
        answers.append(await stream.receive_some())

    net.handlers[ALICE] = record
    idle = [await net.opener(ALICE)(BOB, PROTOCOL) for _ in range(STREAMS_PER_PEER)]
    await trio.testing.wait_all_tasks_blocked()
    late = await net.opener(ALICE)(BOB, PROTOCOL)
    await late.send_all(Message(wants=[Want(cid=CID_OF_DATA)]).encode())
    await trio.testing.wait_all_tasks_blocked()
    assert answers == []
    await idle.pop().aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert len(answers) == 1
    assert net.faults == []
    for stream in (*idle, late):
        await stream.aclose()


@pytest.mark.parametrize("want_block", [True, False])
async def test_a_want_without_send_dont_have_gets_no_answer_for_a_missing_block(net, want_block):
    async with await net.opener(ALICE)(BOB, PROTOCOL) as stream:
        await stream.send_all(Message(wants=[Want(cid=FAR, have=not want_block)]).encode())
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_eof()
        assert await stream.receive_some() == b""
    assert net.faults == []


async def test_a_peer_that_asks_for_too_many_blocks_is_read_slowly(net, autojump_clock):
    lists = 4
    wants = WANT_BURST // 2
    began = trio.current_time()
    async with await net.opener(ALICE)(BOB, PROTOCOL) as stream:
        for number in range(lists):
            absent = [Want(cid=CID.of(RAW, b"%d %d" % (number, want))) for want in range(wants)]
            await stream.send_all(Message(wants=absent).encode())
        await stream.send_eof()
        assert await stream.receive_some() == b""
    asked_late = (lists - 1) * wants - WANT_BURST  # what the last list itself costs is not waited for
    assert trio.current_time() - began >= asked_late / WANTS_PER_SECOND > 1


async def test_a_block_that_is_wanted_many_times_in_one_message_is_sent_once(net):
    net.stores[BOB].put(CID_OF_DATA, DATA)
    received = bytearray()
    ended = trio.Event()

    async def read_answer(peer, stream):
        while data := await stream.receive_some():
            received.extend(data)
        ended.set()

    net.handlers[ALICE] = read_answer
    async with await net.opener(ALICE)(BOB, PROTOCOL) as stream:
        wants = [Want(cid=CID_OF_DATA, have=True)] * 5000 + [Want(cid=CID_OF_DATA)] * 4000
        await stream.send_all(Message(wants=wants).encode())
        await stream.send_eof()
        await ended.wait()
    body = take_message(received)
    assert body is not None
    assert Message.decode(body).blocks == [(CID_OF_DATA, DATA)]
    assert received == b""
