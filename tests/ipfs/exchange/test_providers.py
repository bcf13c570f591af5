"""One DAG from several providers at once."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import pytest
import trio

from bacalhau_p2p.errors import ContentNotFound, InvalidContent, PeerUnreachable
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import PROTOCOL as BITSWAP_PROTOCOL
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import Bitswap
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits, Sources
from bacalhau_p2p.ipfs.exchange.wire import Answer, Operation, Request, Status, read_message, take_message
from bacalhau_p2p.ipfs.format.car import header, section, write_car
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import PeerID
from tests.support.blocks.content_net import ALICE, BOB, CAROL, DAVE, Net
from tests.support.blocks.dag_makers import MemoryBlocks, blob

PATIENT = ExchangeLimits(find=3, idle=60)
"""A peer that stalls must not be waited for: a test would not live to see its time-out."""
SLOW = 4_000_000
"""Bytes a second that a slow peer sends."""


@pytest.fixture
async def net(nursery, tmp_path):
    with ExitStack() as stack:
        yield Net(nursery, tmp_path, stack)


def file_of(leaves: int, size: int = 100_000) -> tuple[MemoryBlocks, CID, list[CID]]:
    blocks = MemoryBlocks()
    parts = [blocks.raw(blob(size, seed)) for seed in range(leaves)]
    return blocks, blocks.file([(part, size) for part in parts]), parts


def give(net: Net, peer: PeerID, blocks: MemoryBlocks, without: set[CID] = frozenset()) -> Counter[CID]:  # type: ignore[assignment]
    """A peer with these blocks; what it reads to send is counted."""
    store = net.stores[peer] if peer in net.stores else net.peer(peer, limits=PATIENT)
    store.put_many((cid, block) for cid, block in blocks.blocks.items() if cid not in without)
    sent: Counter[CID] = Counter()
    read = store.get

    def counted(cid: CID) -> bytes | None:
        sent[cid.v1] += 1
        return read(cid)

    store.get = counted  # type: ignore[method-assign]
    return sent


class Metered:
    """A stream that sends so fast, or until it stalls; what went through it is counted."""

    def __init__(self, stream, rate: float, stall_after: float) -> None:
        self.stream, self.rate, self.left = stream, rate, stall_after
        self.sent = 0

    async def send_all(self, data) -> None:
        if self.left < len(data):
            await trio.sleep_forever()
        self.left -= len(data)
        await trio.sleep(len(data) / self.rate)
        await self.stream.send_all(data)
        self.sent += len(data)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


def meter(net: Net, peer: PeerID, *, rate: float = SLOW, stall_after: float = float("inf")) -> list[Metered]:
    """Let a peer serve at this rate; the streams that it served."""
    serve, streams = net.handlers[peer], []

    async def metered(asker, stream):
        streams.append(Metered(stream, rate, stall_after))
        await serve(asker, streams[-1])

    net.handlers[peer] = metered
    return streams


async def test_two_providers_with_half_of_a_dag_each_give_the_whole(net):
    blocks, root, leaves = file_of(60, 20_000)  # so large that each is read when it is sent
    taker = net.peer(ALICE, limits=PATIENT)
    even = give(net, BOB, blocks, without=set(leaves[1::2]))
    odd = give(net, CAROL, blocks, without=set(leaves[0::2]))
    with trio.fail_after(10):
        await net.fetch(ALICE, root, [BOB, CAROL])
    assert taker.has_all(root)
    assert even.total() + odd.total() > 60
    assert net.opened[BOB] + net.opened[CAROL] < 20


async def test_what_two_providers_lack_together_is_said(net):
    blocks, root, leaves = file_of(20, 3000)
    net.peer(ALICE, limits=PATIENT)
    give(net, BOB, blocks, without=set(leaves[5:]))
    give(net, CAROL, blocks, without=set(leaves[:6]))
    with (
        trio.fail_after(10),
        pytest.raises(ContentNotFound, match="asked 2 peers; 2 peers with parts of it"),
    ):
        await net.fetch(ALICE, root, [BOB, CAROL])
    assert net.stores[ALICE].dag_stat(root).missing == (leaves[5],)


async def test_several_providers_share_the_work_and_send_next_to_nothing_twice(net):
    blocks, root, _ = file_of(160)
    taker = net.peer(ALICE, limits=PATIENT)
    streams = {}
    for peer in (BOB, CAROL, DAVE):
        give(net, peer, blocks)
        streams[peer] = meter(net, peer)
    with trio.fail_after(20):
        await net.fetch(ALICE, root, [BOB, CAROL, DAVE])
    assert taker.has_all(root)
    sent = {peer: sum(stream.sent for stream in streams[peer]) for peer in streams}
    assert min(sent.values()) > 16_000_000 / 6
    assert sum(sent.values()) < 16_000_000 * 1.35  # what is under way when a stream is left counts too


async def test_a_flat_request_gives_the_named_blocks_alone(net):
    blocks, root, leaves = file_of(3, 1000)
    give(net, BOB, blocks)
    request = Request(operation=Operation.GET, cid=root, wanted=(root, leaves[1], root), flat=True)
    assert Request.decode(take_message(bytearray(request.encode())) or b"") == request
    stream = await net.open_stream(ALICE, BOB)
    await stream.send_all(request.encode())
    received = b""
    while piece := await stream.receive_some(65536):
        received += piece
    assert received == Answer(status=Status.OK).encode() + header([root, leaves[1], root]) + b"".join(
        section(cid, blocks.blocks[cid]) for cid in (root, leaves[1])
    )


async def test_a_peer_that_does_not_know_flat_requests_gives_its_part_all_the_same(net):
    blocks, inner = MemoryBlocks(), []
    for number in range(6):
        parts = [blocks.raw(blob(20_000, 10 * number + part)) for part in range(5)]
        inner.append(blocks.file([(part, 20_000) for part in parts]))
    root = blocks.folder([(b"%d" % number, file) for number, file in enumerate(inner)])
    taker = net.peer(ALICE, limits=PATIENT)
    give(net, BOB, blocks, without=set(inner[:3]))
    give(net, CAROL, blocks, without=set(inner[3:]))
    unknown = []

    def forgetful(serve):
        async def handler(peer, stream):
            payload = await read_message(stream, bytearray(), 2)
            request = Request.decode(payload)
            unknown.append(request.flat)
            old = replace(request, flat=False).encode()
            near, far = trio.testing.memory_stream_pair()
            await near.send_all(old)

            async def serve_and_close():
                await serve(peer, far)
                await far.aclose()

            net.nursery.start_soon(serve_and_close)
            while data := await near.receive_some(65536):
                await stream.send_all(data)
            await stream.send_eof()

        return handler

    for peer in (BOB, CAROL):
        net.handlers[peer] = forgetful(net.handlers[peer])
    with trio.fail_after(20):
        await net.fetch(ALICE, root, [BOB, CAROL])
    assert taker.has_all(root)
    assert any(unknown)


async def test_one_provider_alone_is_asked_once(net):
    blocks, root, _ = file_of(40)
    net.peer(ALICE, limits=PATIENT)
    give(net, BOB, blocks)
    await net.fetch(ALICE, root, [BOB])
    assert net.opened[BOB] == 2  # once to ask, once for everything


async def test_a_provider_that_stalls_in_the_middle_holds_nobody_up(net):
    blocks, root, _ = file_of(100)
    taker = net.peer(ALICE, limits=PATIENT)
    for peer in (BOB, CAROL):
        give(net, peer, blocks)
    meter(net, BOB, stall_after=3_000_000)
    meter(net, CAROL)
    with trio.fail_after(20):  # its idle time-out is 60 s
        await net.fetch(ALICE, root, [BOB, CAROL])
    assert taker.has_all(root)


async def test_a_provider_that_dies_in_the_middle_is_made_up_for(net):
    blocks, root, _ = file_of(100)
    taker = net.peer(ALICE, limits=PATIENT)
    for peer in (BOB, CAROL):
        give(net, peer, blocks)
    serve = net.handlers[BOB]

    async def dies(peer, stream):
        with trio.move_on_after(0.3):
            await serve(peer, Metered(stream, SLOW, float("inf")))
        net.handlers.pop(BOB, None)

    net.handlers[BOB] = dies
    meter(net, CAROL)
    with trio.fail_after(20):
        await net.fetch(ALICE, root, [BOB, CAROL])
    assert taker.has_all(root)


async def test_a_liars_blocks_are_refused_and_the_others_finish(net):
    blocks, root, _ = file_of(100)
    taker = net.peer(ALICE, limits=PATIENT)
    give(net, CAROL, blocks)
    give(net, DAVE, blocks)
    meter(net, CAROL)
    meter(net, DAVE)
    lies = []
    planted = CID.of(RAW, b"planted")

    async def lies_later(peer, stream):
        request = Request.decode(await read_message(stream, bytearray(), 2))
        await stream.send_all(Answer(status=Status.OK).encode())
        if request.operation is Operation.GET:
            wanted = request.wanted[0]
            lies.append(wanted)
            await stream.send_all(header([wanted]) + section(wanted, blocks.blocks[wanted]))
            await stream.send_all(section(planted, b"planted"))
        await stream.send_eof()

    net.handlers[BOB] = lies_later
    with trio.fail_after(20):
        await net.fetch(ALICE, root, [BOB, CAROL, DAVE])
    assert taker.has_all(root)
    assert not taker.has(planted)
    assert len(lies) == 1  # it was not asked again


async def test_liars_alone_are_named(net):
    _, root, _ = file_of(3)
    net.peer(ALICE, limits=PATIENT)

    async def lies(peer, stream):
        await read_message(stream, bytearray(), 2)
        await stream.send_all(Answer(status=Status.OK).encode() + header([root]) + section(root, b"lie"))
        await stream.send_eof()

    net.handlers[BOB] = net.handlers[CAROL] = lies
    with (
        trio.fail_after(10),
        pytest.raises(InvalidContent, match=r"(bob|carol) sent invalid data.*does not match its hash"),
    ):
        await net.fetch(ALICE, root, [BOB, CAROL])


async def test_a_peer_of_another_protocol_takes_part(net, tmp_path):
    """CAROL speaks bitswap only, BOB our own protocol; each has half of it."""
    blocks, root, leaves = file_of(40, 20_000)
    taker = net.peer(ALICE, limits=PATIENT)
    give(net, BOB, blocks, without=set(leaves[0::2]))
    given = give(net, CAROL, blocks, without=set(leaves[1::2]))
    own, bitswaps = net.handlers.pop(CAROL), {}

    def opener(name: PeerID):
        async def open_stream(to: PeerID, protocol: str):
            if protocol != BITSWAP_PROTOCOL:
                if to == CAROL:
                    raise PeerUnreachable("carol does not speak it")
                return await net.open_stream(name, to)
            near, far = trio.testing.memory_stream_pair()
            net.nursery.start_soon(bitswaps[to].serve, name, far)
            return near

        return open_stream

    assert own is not None
    for name in (ALICE, CAROL):
        bitswaps[name] = Bitswap(net.stores[name], opener(name), limits=PATIENT)
    exchange = Exchange(taker, opener(ALICE), limits=PATIENT, fallback=bitswaps[ALICE])
    with trio.fail_after(20):
        await exchange.fetch(root, Sources(peers=[BOB, CAROL]))
    assert taker.has_all(root)
    assert all(given[leaf] for leaf in leaves[0::2])


async def test_the_finder_is_asked_only_when_no_peer_at_hand_has_it(net):
    blocks, root, _ = file_of(3)
    net.peer(ALICE, limits=PATIENT), net.peer(DAVE, limits=PATIENT)
    give(net, BOB, blocks)
    asked = []

    class Finder:
        async def find_providers(self, cid, tell):
            asked.append(cid)
            tell(BOB)
            return "DHT lookup (2 nodes)"

    await net.exchanges[ALICE].fetch(root, Sources(peers=[BOB], finder=Finder()))
    assert asked == []
    net.peer(CAROL, limits=PATIENT)
    await net.exchanges[CAROL].fetch(root, Sources(peers=[DAVE], finder=Finder()))
    assert asked == [root]
    assert net.stores[CAROL].has_all(root)
    with pytest.raises(ContentNotFound, match=r"asked 2 peers; DHT lookup \(2 nodes\) found no other"):
        await net.exchanges[CAROL].fetch(CID.of(RAW, b"nowhere"), Sources(peers=[DAVE], finder=Finder()))


class Server:
    """A web server that answers with these bytes."""

    name = "gateway http://gate.example"

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    @asynccontextmanager
    async def open(self, cid, within):
        pieces = iter([self.answer, b""])

        async def receive() -> bytes:
            await trio.lowlevel.checkpoint()
            return next(pieces)

        yield receive


async def test_a_web_server_gives_what_no_peer_could_and_its_lies_are_refused(net):
    blocks, root, leaves = file_of(3, 1000)
    taker = net.peer(ALICE, limits=PATIENT)
    planted = CID.of(RAW, b"planted")
    whole = b"".join(write_car([root], blocks))
    lies = (whole.replace(blob(1000, 1), blob(1000, 9)), header([root]) + section(planted, b"planted"))
    fetch = net.exchanges[ALICE].fetch
    for lie in lies:
        with pytest.raises(InvalidContent, match=r"gateway http://gate\.example sent invalid data"):
            await fetch(root, Sources(gateways=lambda peers, lie=lie: [Server(lie)]))
    assert not taker.has(planted)
    assert not taker.has(leaves[1])
    await fetch(root, Sources(gateways=lambda peers: [Server(lies[0]), Server(whole)]))
    assert taker.has_all(root)


async def test_a_search_that_finds_nobody_ends_in_its_time(net):
    net.peer(ALICE, limits=PATIENT)

    async def silent(peer, stream):
        await trio.sleep_forever()

    class Finder:
        async def find_providers(self, cid, tell):
            await trio.sleep_forever()

    net.handlers[BOB] = silent
    with (
        trio.fail_after(3),
        pytest.raises(ContentNotFound, match=r"1 timed out\); the search for other providers timed out"),
    ):
        await net.exchanges[ALICE].fetch(
            CID.of(RAW, b"x"), Sources(peers=[BOB], finder=Finder()), timeout=0.3
        )


def answering(status: Status):
    async def answer(peer, stream):
        await read_message(stream, bytearray(), 2)
        await stream.send_all(Answer(status=status).encode())
        await stream.send_eof()

    return answer


async def hangs_up(peer, stream):
    await read_message(stream, bytearray(), 2)


async def never_answers(peer, stream):
    await trio.sleep_forever()


async def test_what_came_of_asking_each_peer_is_said(net):
    net.peer(ALICE, limits=ExchangeLimits(find=5, idle=0.2))
    handlers = {
        "nothing": answering(Status.MISSING),
        "nothing too": answering(Status.MISSING),
        "refuses": answering(Status.REFUSED),
        "busy": answering(Status.BUSY),
        "busy too": answering(Status.BUSY),
        "hangs up": hangs_up,
        "silent": never_answers,
    }
    net.handlers |= handlers
    told = (
        r"asked 8 peers \(2 without it, 2 busy, 1 refused, 1 unreachable, 1 failed to answer, 1 timed out\)$"
    )
    with trio.fail_after(20), pytest.raises(ContentNotFound, match=told):
        await net.fetch(ALICE, CID.of(RAW, b"x"), [*handlers, PeerID("away")])


async def test_a_peer_that_is_busy_until_the_search_ends_is_not_called_silent(net):
    net.peer(ALICE, limits=PATIENT)
    net.handlers[BOB] = answering(Status.BUSY)
    with pytest.raises(ContentNotFound, match=r"asked 1 peer \(1 busy\)$"):
        await net.fetch(ALICE, CID.of(RAW, b"x"), [BOB], timeout=0.3)


@pytest.mark.parametrize(
    ("own", "bitswap", "said"),
    [
        (None, None, "1 unreachable"),
        (hangs_up, None, "1 failed to answer"),
        (None, hangs_up, "1 timed out"),  # as bitswap sees it: answers come on other streams
        (never_answers, None, "1 timed out"),
    ],
    ids=["neither protocol", "hangs up", "mute bitswap", "silent"],
)
async def test_a_peer_is_judged_by_what_came_of_both_protocols(net, own, bitswap, said):
    store = net.peer(ALICE, limits=PATIENT)
    limits = ExchangeLimits(find=5, idle=0.2)

    async def open_stream(to: PeerID, protocol: str):
        net.handlers[to] = bitswap if protocol == BITSWAP_PROTOCOL else own
        if net.handlers[to] is None:
            raise PeerUnreachable(f"{to} does not speak {protocol}")
        return await net.open_stream(ALICE, to)

    fallback = Bitswap(store, open_stream, limits=limits)
    exchange = Exchange(store, open_stream, limits=limits, fallback=fallback)
    with trio.fail_after(20), pytest.raises(ContentNotFound, match=rf"asked 1 peer \({said}\)$"):
        await exchange.fetch(CID.of(RAW, b"x"), Sources(peers=[BOB]))
