from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path

import cbor2
import pytest
import trio
from trio.testing import memory_stream_pair

from bacalhau_p2p.encoding.varint import encode_varint
from bacalhau_p2p.errors import (
    ContentNotFound,
    ContentTooLarge,
    InvalidContent,
    RemoteProtocolError,
)
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits
from bacalhau_p2p.ipfs.exchange.paced_sender import MAX_PIECE, MIN_PIECE, PacedSender
from bacalhau_p2p.ipfs.exchange.wire import (
    MAX_WANTED,
    Answer,
    Operation,
    Request,
    Status,
    read_message,
    take_message,
)
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.car import header, section
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from tests.support.blocks.content_net import ALICE, BOB, CAROL, DAVE, Net
from tests.support.blocks.contents import lying
from tests.support.blocks.dag_makers import MemoryBlocks, blob, results_folder


@pytest.fixture
async def net(nursery, tmp_path):
    with ExitStack() as stack:
        yield Net(nursery, tmp_path, stack)


def give(store: BlockStore, blocks: MemoryBlocks) -> None:
    store.put_many(blocks.blocks.items())


async def test_a_folder_is_fetched_whole(net, tmp_path):
    alice, bob = net.peer(ALICE), net.peer(BOB)
    root = build(results_folder(tmp_path / "results"), alice.put).cid
    await net.fetch(BOB, root, [ALICE])
    assert bob.has_all(root)
    assert net.opened[ALICE] == 2  # one to ask, one for everything


async def test_what_is_here_is_not_asked_for(net):
    alice = net.peer(ALICE)
    alice.put(CID.of(RAW, b"x"), b"x")
    await net.fetch(ALICE, CID.of(RAW, b"x"), [BOB])


async def test_the_peer_that_has_it_is_found_among_those_that_do_not(net):
    net.peer(ALICE), net.peer(BOB)
    net.peer(CAROL).put(CID.of(RAW, b"x"), b"x")
    await net.fetch(ALICE, CID.of(RAW, b"x"), [BOB, DAVE, CAROL])
    assert net.stores[ALICE].get(CID.of(RAW, b"x")) == b"x"


async def test_a_cid_that_nobody_has_says_how_many_were_asked(net):
    net.peer(ALICE), net.peer(BOB), net.peer(CAROL)
    cid = CID.of(RAW, b"x")
    with pytest.raises(ContentNotFound, match=rf"no peer has {cid}: asked 2 peers$"):
        await net.fetch(ALICE, cid, [BOB, CAROL, BOB])
    with pytest.raises(ContentNotFound, match=r"no peers are known"):
        await net.fetch(ALICE, cid, [])


async def test_silent_and_absent_peers_do_not_hold_a_fetch_up(net):
    net.peer(ALICE), net.peer(BOB)

    async def silent(peer, stream):
        await trio.sleep_forever()

    net.handlers[CAROL] = silent
    told = r"asked 3 peers \(1 without it, 1 unreachable, 1 timed out\)$"
    with pytest.raises(ContentNotFound, match=told):
        await net.fetch(ALICE, CID.of(RAW, b"x"), [BOB, CAROL, DAVE], timeout=0.1)
    net.stores[BOB].put(CID.of(RAW, b"x"), b"x")
    await net.fetch(ALICE, CID.of(RAW, b"x"), [CAROL, DAVE, BOB], timeout=60)


def three_files() -> tuple[MemoryBlocks, CID, list[CID]]:
    blocks = MemoryBlocks()
    leaves = [blocks.raw(blob(100, seed)) for seed in range(3)]
    return blocks, blocks.folder([(b"%d" % number, leaf) for number, leaf in enumerate(leaves)]), leaves


async def test_the_next_peer_goes_on_where_one_broke_off(net):
    blocks, root, leaves = three_files()
    alice, carol = net.peer(ALICE), net.peer(CAROL)
    give(carol, blocks)
    half = header([root]) + section(root, blocks.blocks[root]) + section(leaves[0], blocks.blocks[leaves[0]])
    asked: list[tuple[CID, ...]] = []

    async def watched(peer, stream):
        buffer = bytearray()
        payload = await read_message(stream, buffer, 2)
        asked.append(Request.decode(payload).wanted)
        replay, ours = memory_stream_pair()
        await replay.send_all(encode_varint(len(payload)) + payload)
        net.nursery.start_soon(net.exchanges[CAROL].serve, peer, ours)
        while data := await replay.receive_some(65536):
            await stream.send_all(data)
        await stream.send_eof()

    broke = trio.Event()

    async def watched_later(peer, stream):
        await broke.wait()
        await watched(peer, stream)

    net.handlers[BOB], net.handlers[CAROL] = lying(blocks, half, gave=broke), watched_later
    await net.fetch(ALICE, root, [BOB, CAROL])
    assert alice.has_all(root)
    assert asked[-1] == tuple(leaves[1:])


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (lambda root, block, other: section(root, block + b"x"), "does not match its hash"),
        (lambda root, block, other: section(root, block)[:-5], "truncated"),
        (lambda root, block, other: section(other, b"other"), "unexpected block"),
        (lambda root, block, other: section(root, block) * 2, "unexpected block"),
        (lambda root, block, other: section(CID.of(0x71, b"x"), b"x"), "codec 0x71"),
        (lambda root, block, other: b"\xff\xff\xff\x7f", "the limit is"),
    ],
    ids=["tampered", "truncated", "unsolicited", "repeated", "codec", "oversize"],
)
async def test_wrong_blocks_are_refused_not_stored_and_had_from_another(net, stream, message):
    blocks, root, _ = three_files()
    alice, carol = net.peer(ALICE), net.peer(CAROL)
    other = CID.of(RAW, b"other")
    net.handlers[BOB] = lying(blocks, header([root]) + stream(root, blocks.blocks[root], other))
    with pytest.raises(InvalidContent, match=f"peer bob sent invalid data.*{message}"):
        await net.fetch(ALICE, root, [BOB])
    assert not alice.has(other)
    give(carol, blocks)
    await net.fetch(ALICE, root, [BOB, CAROL])
    assert alice.has_all(root)


async def test_a_stream_that_ends_too_early_is_not_taken_for_complete(net):
    blocks, root, _ = three_files()
    net.peer(ALICE)
    net.handlers[BOB] = lying(blocks, header([root]) + section(root, blocks.blocks[root]))
    with pytest.raises(ContentNotFound, match="before all blocks arrived"):
        await net.fetch(ALICE, root, [BOB])


async def test_evil_content_is_refused_from_whomever_it_comes(net):
    blocks = MemoryBlocks()
    root = blocks.folder([(b"../evil", blocks.raw(b"x"))])
    alice, bob = net.peer(ALICE), net.peer(BOB)
    give(bob, blocks)
    net.handlers[BOB] = lying(blocks, header([root]) + section(root, blocks.blocks[root]))
    with pytest.raises(InvalidContent, match="invalid entry name"):
        await net.fetch(ALICE, root, [BOB])
    assert not alice.has(CID.of(RAW, b"x"))


async def test_content_above_the_limits_is_refused_at_its_root(net):
    blocks = MemoryBlocks()
    root = blocks.file([(blocks.raw(bytes(1000)), 1000)] * 100)
    alice, bob = net.peer(ALICE, content=Limits(bytes=50_000)), net.peer(BOB)
    give(bob, blocks)
    with pytest.raises(ContentTooLarge, match="100000 bytes; the limit is 50000"):
        await net.fetch(ALICE, root, [BOB])
    assert not alice.has(CID.of(RAW, bytes(1000)))


async def test_a_codec_that_is_not_ours_is_refused_before_anybody_is_asked(net):
    net.peer(ALICE), net.peer(BOB)
    with pytest.raises(InvalidContent, match="codec 0x71"):
        await net.fetch(ALICE, CID.of(0x71, b"x"), [BOB])
    assert not net.opened


async def test_more_missing_blocks_than_one_request_can_name_are_fetched(net):
    blocks = MemoryBlocks()
    leaves = [blocks.raw(b"%d" % number) for number in range(MAX_WANTED + 500)]
    root = blocks.folder([(b"%d" % number, leaf) for number, leaf in enumerate(leaves)])
    alice, bob = net.peer(ALICE), net.peer(BOB)
    give(bob, blocks)
    alice.put(root, blocks.blocks[root])
    await net.fetch(ALICE, root, [BOB])
    assert alice.has_all(root)
    assert net.opened[BOB] == 3


async def test_two_fetches_of_one_cid_are_one_transfer(net):
    blocks, root, _ = three_files()
    net.peer(ALICE)
    give(net.peer(BOB), blocks)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(net.fetch, ALICE, root, [BOB])
    assert net.opened[BOB] == 2


async def test_a_cancelled_fetch_can_be_taken_up_again(net):
    blocks, root, _ = three_files()
    alice = net.peer(ALICE)
    reached = trio.Event()

    async def stalls(peer, stream):
        await lying(blocks, header([root]))(peer, stream)
        reached.set()

    net.handlers[BOB] = stalls
    async with trio.open_nursery() as nursery:
        nursery.start_soon(net.fetch, ALICE, root, [BOB])
        await reached.wait()
        nursery.cancel_scope.cancel()
    give(net.peer(CAROL), blocks)
    await net.fetch(ALICE, root, [CAROL])
    assert alice.has_all(root)


async def test_a_stalled_peer_is_given_up_and_the_next_one_asked(net):
    blocks, root, _ = three_files()
    net.peer(ALICE, limits=ExchangeLimits(find=2, idle=0.05))
    give(net.peer(CAROL), blocks)
    serve = net.exchanges[CAROL].serve
    tried = trio.Event()

    async def stalls(peer, stream):
        request = Request.decode(await read_message(stream, bytearray(), 2))
        await stream.send_all(Answer(status=Status.OK).encode())
        if request.operation is Operation.GET:
            tried.set()
            await trio.sleep_forever()
        await stream.send_eof()

    async def later(peer, stream):
        await serve(peer, stream)

    net.handlers[BOB] = stalls
    with pytest.raises(ContentNotFound, match=r"from peer bob: no data for 0.05 s"):
        await net.fetch(ALICE, root, [BOB])
    assert tried.is_set()
    net.handlers[CAROL] = later
    await net.fetch(ALICE, root, [BOB, CAROL])


# --- the serving side, spoken to in bytes ---------------------------------------------------


async def speak(net: Net, to: PeerID, data: bytes, *, end: bool = True) -> bytes:
    near, far = memory_stream_pair()
    net.nursery.start_soon(net.handle, to, PeerID("stranger"), far)
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


async def test_the_protocol_on_the_wire_is_the_documented_one(net):
    store = net.peer(ALICE)
    cid = CID.of(RAW, b"hello\n")
    store.put(cid, b"hello\n")
    have = message({"op": "have", "cid": cid.binary})
    get = message({"op": "get", "cid": cid.binary, "want": [cid.binary], "later": "ignored"})
    okay = message({"status": "ok"})
    assert await speak(net, ALICE, have) == okay
    assert await speak(net, ALICE, get) == okay + header([cid]) + section(cid, b"hello\n")
    other = CID.of(RAW, b"other").binary
    assert await speak(net, ALICE, message({"op": "have", "cid": other})) == message({"status": "missing"})
    assert await speak(net, ALICE, message({"op": "get", "cid": other})) == message({"status": "missing"})
    refused = await speak(net, ALICE, message({"op": "list", "cid": cid.binary}))
    assert Answer.decode(take_message(bytearray(refused))).status is Status.REFUSED


def test_the_example_in_the_documentation_is_what_we_say():
    document = (Path(__file__).parents[3] / "docs" / "content.md").read_text()
    example = dict(line.split() for line in document.split("```")[-2].strip().splitlines() if line)
    cid = CID.of(RAW, b"hello\n")
    assert {name: bytes.fromhex(text) for name, text in example.items()} == {
        "have": Request(operation=Operation.HAVE, cid=cid).encode(),
        "get": Request(operation=Operation.GET, cid=cid).encode(),
        "ok": Answer(status=Status.OK).encode(),
        "CAR": header([cid]),
        "block": section(cid, b"hello\n"),
    }


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
        message({"op": 1, "cid": CID.of(RAW, b"").binary}),
        message({"op": "get", "cid": CID.of(RAW, b"").binary, "want": [1]}),
        message({"op": "get", "cid": CID.of(RAW, b"").binary, "want": [CID.of(RAW, b"").binary] * 1001}),
        b"\x02\xa0\xa0",
        b"\x06\xd8\x23\x64(a+)",
        b"\x02\xbf\xff",
        b"\x05\xa2\x61a\x01\x61",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_garbage_is_a_remote_fault_and_serving_goes_on(net, data):
    store = net.peer(ALICE)
    assert await speak(net, ALICE, data) == b""
    assert [type(fault) for fault in net.faults] == [RemoteProtocolError]
    store.put(CID.of(RAW, b"x"), b"x")
    answer = await speak(net, ALICE, message({"op": "have", "cid": CID.of(RAW, b"x").binary}))
    assert answer == message({"status": "ok"})


@pytest.mark.parametrize(
    "tag", [0, 1, 2, 4, 5, 25, 28, 29, 30, 35, 36, 37, 42, 100, 258, 260, 1004, 55799, 99999]
)
def test_every_tag_is_refused(tag):
    payload = b"\xa1\x62op\xda" + tag.to_bytes(4, "big") + b"\x61a"
    with pytest.raises(RemoteProtocolError, match=r"not plain CBOR.*tag"):
        Request.decode(payload)


async def test_a_peer_that_asks_too_much_at_once_is_told_so(net):
    net.peer(ALICE, limits=ExchangeLimits(idle=5, requests_per_peer=2))
    request = message({"op": "have", "cid": CID.of(RAW, b"x").binary})
    waiting = []
    for _ in range(2):
        near, far = memory_stream_pair()
        net.nursery.start_soon(net.handle, ALICE, PeerID("stranger"), far)
        waiting.append(near)
    await trio.testing.wait_all_tasks_blocked()
    busy = await speak(net, ALICE, request)
    assert Answer.decode(take_message(bytearray(busy))).status is Status.BUSY
    for near in waiting:
        await near.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert await speak(net, ALICE, request) == message({"status": "missing"})


async def test_a_peer_that_says_nothing_is_not_waited_for_long(net):
    net.peer(ALICE, limits=ExchangeLimits(idle=0.05))
    assert await speak(net, ALICE, b"", end=False) == b""
    assert [type(fault) for fault in net.faults] == [trio.TooSlowError]


async def test_a_question_does_not_wait_behind_transfers(net):
    blocks = MemoryBlocks()
    first, second = blocks.raw(b"first"), blocks.raw(b"second")
    alice = net.peer(ALICE, limits=ExchangeLimits(find=0.5, idle=5, requests_to_peer=1))
    bob = net.peer(BOB)
    give(bob, blocks)
    asked = [trio.Event(), trio.Event()]
    release = trio.Event()

    async def slow(peer, stream):
        buffer = bytearray()
        request = Request.decode(await read_message(stream, buffer, 2))
        if request.operation is Operation.GET:
            await release.wait()
        elif request.cid == second:
            asked[1].set()
        await stream.send_all(Answer(status=Status.OK).encode())
        if request.operation is Operation.GET:
            asked[0].set()
            await stream.send_all(header([request.cid]) + section(request.cid, blocks.blocks[request.cid]))
        await stream.send_eof()

    net.handlers[BOB] = slow
    async with trio.open_nursery() as nursery:
        nursery.start_soon(net.fetch, ALICE, first, [BOB])
        nursery.start_soon(net.fetch, ALICE, second, [BOB])
        await asked[1].wait()
        release.set()
    assert asked[0].is_set()
    assert alice.has(first)
    assert alice.has(second)


async def test_requests_to_one_peer_wait_for_each_other(net):
    blocks = MemoryBlocks()
    cids = [blocks.raw(b"%d" % number) for number in range(30)]
    net.peer(ALICE, limits=ExchangeLimits(idle=5, requests_to_peer=2))
    bob = net.peer(BOB, limits=ExchangeLimits(idle=5, requests_per_peer=4))
    give(bob, blocks)
    async with trio.open_nursery() as nursery:
        for cid in cids:
            nursery.start_soon(net.fetch, ALICE, cid, [BOB])
    assert all(net.stores[ALICE].has(cid) for cid in cids)


class Taking(trio.abc.SendStream):
    """A peer that takes so many bytes a second, which may change; notes the pieces that it is sent."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.pieces: list[int] = []

    async def send_all(self, data) -> None:
        self.pieces.append(len(data))
        await trio.sleep(len(data) / self.rate if self.rate else math.inf)

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        raise AssertionError


async def test_a_peer_that_takes_blocks_slowly_is_waited_for_and_one_that_takes_none_is_not(autojump_clock):
    peer = Taking(5_000)
    pace = PacedSender(peer, 15)
    await pace.send(bytes(1_000_000))
    assert set(peer.pieces[:-1]) == {MIN_PIECE}
    peer.pieces.clear()
    peer.rate = 1e9
    await pace.send(bytes(3_000_000))
    assert sum(peer.pieces) == 3_000_000
    assert max(peer.pieces) == MAX_PIECE
    assert len(peer.pieces) < 3_000_000 / MAX_PIECE + 4
    peer.pieces.clear()
    peer.rate = 18_000  # of a sudden
    await pace.send(bytes(1_000_000))
    assert set(peer.pieces[1:-1]) == {MIN_PIECE}
    peer.rate = 0
    began = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await pace.send(bytes(10))
    assert trio.current_time() - began == 15
