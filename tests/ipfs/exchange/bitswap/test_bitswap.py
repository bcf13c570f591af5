from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import pytest
import trio
from trio.testing import memory_stream_pair

from bacalhau_p2p.encoding.varint import encode_varint
from bacalhau_p2p.errors import ContentNotFound, InvalidContent, PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import MAX_WAITING_WANTS, PROTOCOL, Bitswap
from bacalhau_p2p.ipfs.exchange.bitswap.session import CONNECTION_CHECK_INTERVAL
from bacalhau_p2p.ipfs.exchange.bitswap.wire import MAX_MESSAGE, Message, Want, take_message
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits, Sources
from bacalhau_p2p.ipfs.exchange.wire import PROTOCOL as CAR_PROTOCOL
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.support.blocks.dag_makers import MemoryBlocks, blob, results_folder

ALICE, BOB = PeerID("alice"), PeerID("bob")
FAR = CID.of(RAW, b"nowhere")
V0 = CID(CID.of(DAG_PB, b"").binary[2:])


class Net:
    """Two peers who speak nothing but bitswap."""

    def __init__(self, nursery: trio.Nursery, folder, stack: ExitStack) -> None:
        self.nursery = nursery
        self.opened: Counter[PeerID] = Counter()
        self.faults: list[Exception] = []
        self.stores = {name: stack.enter_context(BlockStore(folder / name)) for name in (ALICE, BOB)}
        limits = ExchangeLimits(find=2, idle=2)
        self.bitswaps = {
            name: Bitswap(self.stores[name], self.opener(name), limits=limits) for name in (ALICE, BOB)
        }
        self.handlers = {name: self.bitswaps[name].serve for name in (ALICE, BOB)}
        self.exchange = Exchange(
            self.stores[BOB], self.opener(BOB), limits=limits, fallback=self.bitswaps[BOB]
        )

    def opener(self, name: PeerID):
        async def open_stream(peer: PeerID, protocol: str):
            if protocol == CAR_PROTOCOL or peer not in self.handlers:
                raise PeerUnreachable(f"{peer} does not speak {protocol}")
            assert protocol == PROTOCOL
            self.opened[peer] += 1
            near, far = memory_stream_pair()
            self.nursery.start_soon(self.handle, peer, name, far)
            return near

        return open_stream

    async def handle(self, server: PeerID, client: PeerID, stream) -> None:
        try:
            await self.handlers[server](client, stream)
        except RemoteProtocolError as error:
            self.faults.append(error)
        await stream.aclose()


@pytest.fixture
async def net(nursery, tmp_path):
    with ExitStack() as stack:
        yield Net(nursery, tmp_path, stack)


# --- messages -----------------------------------------------------------------------------------


def test_a_message_is_what_the_specification_says():
    want = Want(cid=FAR, have=True, send_dont_have=True)
    message = Message(wants=[want], blocks=[(CID.of(RAW, b"x"), b"x")], presences=[(FAR, False), (FAR, True)])
    cid = FAR.binary.hex()
    assert message.encode().hex() == (
        "8701"
        f"0a2e 0a2c 0a24{cid} 1001 2001 2801"
        "1a09 0a0401551220 120178"
        f"2228 0a24{cid} 1001"
        f"2226 0a24{cid}"
    ).replace(" ", "").replace("8701", format_varint(message))  # fmt: skip
    assert Message.decode(take_message(bytearray(message.encode()))) == message


def format_varint(message: Message) -> str:
    body = take_message(bytearray(message.encode()))
    return encode_varint(len(body)).hex()


def test_a_block_that_was_wanted_by_a_cidv0_has_the_prefix_that_others_understand():
    body = take_message(bytearray(Message(blocks=[(V0, b"")]).encode()))
    assert bytes.fromhex("00701220") in body
    assert Message.decode(body).blocks == [(V0.v1, b"")]


def test_cids_of_other_kinds_are_left_out():
    other = CID.of(0x71, b"x")
    body = take_message(bytearray(Message(wants=[Want(cid=other)], presences=[(other, True)]).encode()))
    assert Message.decode(body) == Message()


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a\x05\x0a\x10",
        b"\xff" * 11,
        b"\x0a\x04\x0a\x02\x10\x01",
        b"\x22\x04\x0a\x02\x01\x55",
        b"\x1a\x02\x12\x00" * 10_001,
        b"\x1a\x04\x0a\x02\x80\x80",
    ],
)
def test_malformed_messages_are_refused(body):
    with pytest.raises(RemoteProtocolError):
        Message.decode(body)


def test_a_message_that_is_too_long_is_refused_before_it_comes():
    with pytest.raises(RemoteProtocolError, match="the limit is"):
        take_message(bytearray(encode_varint(MAX_MESSAGE + 1)))
    assert take_message(bytearray(encode_varint(MAX_MESSAGE))) is None


# --- fetching -------------------------------------------------------------------------------------


async def test_a_folder_is_fetched_whole(net, tmp_path):
    root = build(results_folder(tmp_path / "results"), net.stores[ALICE].put).cid
    assert await net.bitswaps[BOB].has(ALICE, root)
    await net.bitswaps[BOB].fetch(ALICE, root)
    assert net.stores[BOB].has_all(root)
    assert net.faults == []


async def test_many_blocks_take_few_streams(net):
    blocks = MemoryBlocks()
    root = blocks.folder([(b"%d" % n, blocks.raw(b"%d" % n)) for n in range(1000)])
    net.stores[ALICE].put_many(blocks.blocks.items())
    await net.bitswaps[BOB].fetch(ALICE, root)
    assert net.stores[BOB].has_all(root)
    assert net.opened == {ALICE: 1, BOB: 1}


async def test_only_what_is_missing_is_asked_for(net, tmp_path):
    (tmp_path / "file").write_bytes(blob(2_000_000, 1))
    root = build(tmp_path / "file", net.stores[ALICE].put).cid
    build(tmp_path / "file", net.stores[BOB].put)
    leaf = net.stores[BOB].get(root)
    lost = [cid for cid, block in blocks_of(tmp_path / "file").items() if block != leaf][3]
    net.stores[BOB].delete(lost)
    sent: list[CID] = []
    read = net.stores[ALICE].get
    net.stores[ALICE].get = lambda cid: sent.append(cid) or read(cid)
    await net.bitswaps[BOB].fetch(ALICE, root)
    assert sent == [lost]
    assert net.stores[BOB].has_all(root)


def blocks_of(path) -> dict[CID, bytes]:
    blocks: dict[CID, bytes] = {}
    build(path, blocks.__setitem__)
    return blocks


async def test_a_cidv0_is_fetched(net):
    blocks = MemoryBlocks()
    root = blocks.folder([(b"a", blocks.raw(b"a"))])
    net.stores[ALICE].put_many(blocks.blocks.items())
    old = CID(root.binary[2:])
    assert await net.bitswaps[BOB].has(ALICE, old)
    await net.bitswaps[BOB].fetch(ALICE, old)
    assert net.stores[BOB].has_all(root)


async def test_empty_content_is_fetched(net):
    empty = CID.of(RAW, b"")
    net.stores[ALICE].put(empty, b"")
    await net.bitswaps[BOB].fetch(ALICE, empty)
    assert net.stores[BOB].get(empty) == b""


async def test_what_a_peer_lacks_is_told_at_once(net):
    assert not await net.bitswaps[BOB].has(ALICE, FAR)
    with pytest.raises(PeerFault, match=f"block {FAR} is missing"):
        await net.bitswaps[BOB].fetch(ALICE, FAR)


async def test_a_peer_that_falls_silent_is_given_up(net, autojump_clock):
    async def silent(peer, stream):
        await trio.sleep_forever()

    net.handlers[ALICE] = silent
    with pytest.raises(PeerFault, match="no data for 2 s"):
        await net.bitswaps[BOB].fetch(ALICE, FAR)


async def test_a_peer_whose_connection_breaks_is_given_up_soon(tmp_path, autojump_clock):
    network = MemoryNetwork()
    async with network.open(ALICE) as alice, network.open(BOB) as bob:

        async def dies(peer, stream):
            await stream.receive_some()
            await alice.disconnect(peer)

        alice.handle_streams(PROTOCOL, dies)
        with BlockStore(tmp_path / "store") as store:
            bitswap = Bitswap(store, bob.open_stream, limits=ExchangeLimits(idle=30))
            for ask in (bitswap.fetch, bitswap.has, bitswap.block):
                await bob.connect(alice.addresses[0])
                began = trio.current_time()
                with pytest.raises(PeerFault, match="connection lost"):
                    await ask(ALICE, FAR)
                assert trio.current_time() - began <= 2 * CONNECTION_CHECK_INTERVAL


async def test_a_peer_that_ends_its_half_of_our_stream_is_waited_for(net, autojump_clock):
    async def half_closes(peer, stream):
        await stream.send_eof()
        await trio.sleep_forever()

    net.handlers[ALICE] = half_closes
    with pytest.raises(PeerFault, match="no data for 2 s"):
        await net.bitswaps[BOB].fetch(ALICE, FAR)


async def test_an_answer_is_not_cut_off_before_its_reader_is_done(net):
    data = b"a block"
    net.stores[ALICE].put(CID.of(RAW, data), data)
    done = trio.Event()

    async def reads_at_leisure(peer, stream):
        answer = b""
        while piece := await stream.receive_some():
            answer += piece
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"still there?")  # which fails when the other end is closed
        body = take_message(bytearray(answer))
        assert body is not None
        assert Message.decode(body).blocks == [(CID.of(RAW, data), data)]
        done.set()

    net.handlers[BOB] = reads_at_leisure
    async with await net.opener(BOB)(ALICE, PROTOCOL) as stream:
        await stream.send_all(Message(wants=[Want(cid=CID.of(RAW, data))]).encode())
        await stream.send_eof()
        with trio.fail_after(10):
            await done.wait()


async def test_the_exchange_falls_back_on_bitswap(net, tmp_path):
    root = build(results_folder(tmp_path / "results"), net.stores[ALICE].put).cid
    await net.exchange.fetch(root, Sources(peers=[PeerID("carol"), ALICE]))
    assert net.stores[BOB].has_all(root)
    with pytest.raises(ContentNotFound, match="no peer has"):
        await net.exchange.fetch(FAR, Sources(peers=[ALICE]))


# --- guards ---------------------------------------------------------------------------------------


async def test_unsolicited_blocks_are_not_stored(net):
    data = b"nobody asked for this"
    stream = await net.opener(ALICE)(BOB, PROTOCOL)
    async with stream:
        await stream.send_all(Message(blocks=[(CID.of(RAW, data), data)]).encode())
        await stream.send_all(Message(wants=[Want(cid=FAR, send_dont_have=True)]).encode())
        await stream.send_eof()
        await stream.receive_some()
    assert not net.stores[BOB].has(CID.of(RAW, data))


async def test_a_block_in_the_place_of_another_is_not_stored_and_gives_nothing(net, autojump_clock):
    wrong = b"another block"

    async def liar(peer, stream):
        await stream.receive_some()
        answer = await net.opener(ALICE)(BOB, PROTOCOL)
        await answer.send_all(Message(blocks=[(FAR, wrong)]).encode())
        await trio.sleep_forever()

    net.handlers[ALICE] = liar
    with pytest.raises(PeerFault, match="no data"):
        await net.bitswaps[BOB].fetch(ALICE, FAR)
    assert net.stores[BOB].used == 0


async def test_what_contradicts_itself_ends_a_fetch(net):
    blocks = MemoryBlocks()
    root = blocks.folder([(b"../evil", blocks.raw(b"evil"))])
    net.stores[ALICE].put_many(blocks.blocks.items())
    with pytest.raises(InvalidContent, match="invalid entry name"):
        await net.exchange.fetch(root, Sources(peers=[ALICE]))
    assert net.stores[BOB].used == 0


class Counted:
    """A stream that counts what was taken from it."""

    def __init__(self, stream) -> None:
        self.stream, self.taken = stream, 0

    async def receive_some(self, most: int) -> bytes:
        data = await self.stream.receive_some(most)
        self.taken += len(data)
        return data


async def test_a_peer_that_wants_much_and_takes_no_answers_is_read_no_further(net):
    async def stuck(peer, protocol):
        await trio.sleep_forever()

    near, far = memory_stream_pair()
    counted = Counted(far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Bitswap(net.stores[BOB], stuck).serve, ALICE, counted)
        message = Message(wants=[Want(cid=FAR, send_dont_have=True)] * 1000).encode()
        for _ in range(50):
            await near.send_all(message)
        while counted.taken < MAX_WAITING_WANTS * len(message) // 1000:
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert counted.taken < 25 * len(message)
        nursery.cancel_scope.cancel()


async def test_a_peer_may_answer_on_many_streams_at_one_time_as_kubo_does(net):
    blocks = MemoryBlocks()
    root = blocks.folder([(b"%d" % number, blocks.raw(b"%d" % number)) for number in range(9)])

    async def serve(peer, stream):
        buffer = bytearray()
        while data := await stream.receive_some():
            buffer += data
            while (body := take_message(buffer)) is not None:
                for want in Message.decode(body).wants:
                    answer = await net.opener(ALICE)(BOB, PROTOCOL)  # left open, as if others hurried ahead
                    await answer.send_all(Message(blocks=[(want.cid, blocks.blocks[want.cid])]).encode())

    net.handlers[ALICE] = serve
    await net.bitswaps[BOB].fetch(ALICE, root)
    assert net.stores[BOB].has_all(root)
    assert net.faults == []


async def test_more_streams_of_a_peer_than_are_heard_at_one_time_wait_their_turn(net):
    blocks, answers = MemoryBlocks(), []
    cid = blocks.raw(b"content")
    net.stores[BOB].put_many([(cid, blocks.blocks[cid])])

    async def answered(peer, stream):
        answers.append(await stream.receive_some())

    net.handlers[ALICE] = answered
    idle = [await net.opener(ALICE)(BOB, PROTOCOL) for _ in range(16)]
    await trio.testing.wait_all_tasks_blocked()
    late = await net.opener(ALICE)(BOB, PROTOCOL)
    await late.send_all(Message(wants=[Want(cid=cid)]).encode())
    await trio.testing.wait_all_tasks_blocked()
    assert answers == []
    await idle.pop().aclose()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert len(answers) == 1
    assert net.faults == []
    for stream in (*idle, late):
        await stream.aclose()
