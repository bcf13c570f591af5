from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.dht import routing_table, service
from bacalhau_p2p.ipfs.dht.routing_table import BUCKET, Records, Table, nearest, position
from bacalhau_p2p.ipfs.dht.service import Dht
from bacalhau_p2p.ipfs.dht.wire import Contact, Kind, Message, peer_key, take_message
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.memory.network import MemoryNetwork

PROTOCOL = "/bacalhau/test/kad/1.0.0"


def identity(number: int) -> Identity:
    return Identity.generate(number.to_bytes(32))


def cid(number: int) -> CID:
    return CID.of(RAW, b"%d" % number)


class Net:
    """Nodes of a DHT over a network in memory; each knows from the start whom it is connected to."""

    def __init__(self) -> None:
        self.nodes: list[Dht] = []
        self.transports = []
        self.addresses: dict[PeerID, tuple[str, ...]] = {}
        self.roots: list[set[CID]] = []
        self.met: list[dict[PeerID, Sequence[str]]] = []

    def add(self, nursery, transport, *, serve=True, explore=False):
        met: dict[PeerID, Sequence[str]] = {}

        def meet(peer: PeerID, addresses: Sequence[str]) -> None:
            met[peer] = addresses
            if peer not in transport.peers:
                transport.learn_addresses(peer, addresses)

        dht = Dht(
            transport.peer_id,
            PROTOCOL,
            transport.open_stream,
            seeds=lambda: [Contact(peer, self.addresses[peer]) for peer in transport.peers],
            meet=meet,
            addresses=lambda: transport.addresses,
            clock=trio.current_time,
            connected=lambda: transport.peers,
            explore=explore,
        )
        if serve:
            transport.handle_streams(PROTOCOL, dht.serve)
        roots: set[CID] = set()

        async def pinned() -> set[CID]:
            return roots

        nursery.start_soon(dht.run, pinned)
        self.nodes.append(dht)
        self.transports.append(transport)
        self.addresses[transport.peer_id] = tuple(transport.addresses)
        self.roots.append(roots)
        self.met.append(met)

    async def connect(self, one: int, other: int) -> None:
        await self.transports[one].connect(self.transports[other].addresses[0])

    async def provide(self, number: int, what: CID) -> None:
        """Returns when the others were told."""
        node = self.nodes[number]
        before = node.counters["keys_provided"]
        self.roots[number].add(what)
        node.provide(what)
        await until(lambda: node.counters["keys_provided"] > before)

    async def find(self, number: int, what: CID) -> tuple[set[PeerID], str]:
        found: set[PeerID] = set()
        said = await self.nodes[number].find(what, found.add)
        return found, said


async def until(condition: Callable[[], object]) -> None:
    """Returns when it holds; the clock is one that jumps."""
    with trio.fail_after(3600):
        while True:
            if condition():
                return
            await trio.sleep(0.1)


@asynccontextmanager
async def opened(count: int, links: Sequence[tuple[int, int]], *, clients: int = 0, **options):
    net = Net()
    async with AsyncExitStack() as stack:
        network = MemoryNetwork(full_mesh=False)
        opened = [network.open(identity(number)) for number in range(count)]
        transports = [await stack.enter_async_context(transport) for transport in opened]
        nursery = await stack.enter_async_context(trio.open_nursery())
        for number, transport in enumerate(transports):
            net.add(nursery, transport, serve=number < count - clients, **options)
        for one, other in links:
            await net.connect(one, other)
        yield net
        nursery.cancel_scope.cancel()


async def test_a_provider_is_found_by_a_node_that_never_met_it(autojump_clock):
    async with opened(3, [(0, 1), (1, 2)]) as net:
        await net.provide(0, cid(1))
        provider = net.transports[0].peer_id
        assert await net.find(2, cid(1)) == ({provider}, "the DHT (2 nodes)")
        assert net.met[2][provider] == tuple(net.transports[0].addresses)
        stream = await net.transports[2].open_stream(provider, PROTOCOL)  # at the address that it was told
        await stream.aclose()


async def test_in_a_line_of_30_every_root_is_found_from_everywhere(autojump_clock):
    async with opened(30, [(number, number + 1) for number in range(29)], explore=True) as net:
        for number in range(0, 30, 3):
            await net.provide(number, cid(number))
        for number in range(0, 30, 3):
            for finder in (0, 7, 29):
                if finder != number:
                    found, _ = await net.find(finder, cid(number))
                    assert found == {net.transports[number].peer_id}


async def test_what_nobody_provides_is_not_found_and_the_nodes_are_counted(autojump_clock):
    async with opened(3, [(0, 1), (1, 2)]) as net:
        assert await net.find(0, cid(1)) == (set(), "the DHT (2 nodes)")
    async with opened(1, []) as net:
        assert await net.find(0, cid(1)) == (set(), "the DHT (0 nodes)")


async def test_a_client_provides_and_finds_and_is_not_asked(autojump_clock):
    async with opened(3, [(1, 0), (2, 0)], clients=2) as net:
        await net.provide(1, cid(1))
        assert await net.find(2, cid(1)) == ({net.transports[1].peer_id}, "the DHT (1 node)")
        assert len(net.nodes[0].records) == 1
        assert len(net.nodes[1].records) == len(net.nodes[2].records) == 0


async def test_many_roots_travel_together(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        before = net.nodes[1].counters["records_taken"]
        streams = []
        handler = net.nodes[1].serve

        async def counted(peer, stream):
            streams.append(peer)
            await handler(peer, stream)

        net.transports[1].handle_streams(PROTOCOL, counted)
        for number in range(150):
            net.nodes[0].provide(cid(number))
            net.nodes[0].provide(cid(number))  # a second time says nothing new
        await until(lambda: net.nodes[1].counters["records_taken"] == before + 150)
        assert len(streams) == 1
        net.nodes[0].provide(cid(7))
        await trio.sleep(60)
        assert len(streams) == 1


async def test_a_node_that_was_alone_provides_when_somebody_comes(autojump_clock):
    async with opened(2, []) as net:
        net.nodes[0].provide(cid(1))
        await trio.sleep(60)
        await net.connect(1, 0)
        await until(lambda: net.nodes[1].records)
        assert (await net.find(1, cid(1)))[0] == {net.transports[0].peer_id}


async def test_records_are_made_anew_before_they_are_forgotten_and_not_for_what_was_unpinned(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        await net.provide(0, cid(1))
        await net.provide(0, cid(2))
        net.roots[0].discard(cid(2))
        await trio.sleep(3 * routing_table.RECORD_LIFETIME)
        assert (await net.find(1, cid(1)))[0] == {net.transports[0].peer_id}
        assert (await net.find(1, cid(2)))[0] == set()


async def test_roots_that_were_pinned_before_the_start_are_provided(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        net.roots[0].add(cid(3))
        await trio.sleep(service.LOOK_EVERY + 10)
        assert (await net.find(1, cid(3)))[0] == {net.transports[0].peer_id}


async def test_a_node_that_comes_back_without_its_records_is_told_again(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        await net.provide(0, cid(1))
        net.nodes[0].disconnected(net.transports[1].peer_id)
        net.nodes[1].records = Records()
        await trio.sleep(2 * service.LOOK_EVERY)
        assert (await net.find(1, cid(1)))[0] == {net.transports[0].peer_id}


async def test_in_a_small_network_only_those_connected_are_told_and_all_are_asked(autojump_clock):
    async with opened(4, [(0, 1), (1, 2), (1, 3)]) as net:
        assert len((await net.find(0, cid(9)))[1]) == len("the DHT (3 nodes)")  # it knows them all
        await net.transports[0].disconnect(net.transports[2].peer_id)
        await net.transports[0].disconnect(net.transports[3].peer_id)
        await net.provide(0, cid(1))
        assert [len(node.records) for node in net.nodes] == [0, 1, 0, 0]
        for finder in (2, 3):
            assert (await net.find(finder, cid(1)))[0] == {net.transports[0].peer_id}


async def test_an_idle_node_sends_nothing(autojump_clock):
    async with opened(3, [(0, 1), (1, 2)]) as net:
        await net.provide(0, cid(1))
        heard = []
        for number, transport in enumerate(net.transports):
            handler = net.nodes[number].serve

            async def counted(peer, stream, handler=handler):
                heard.append(peer)
                await handler(peer, stream)

            transport.handle_streams(PROTOCOL, counted)
        await trio.sleep(3600)
        assert heard == []


# --- strangers ------------------------------------------------------------------------------------


async def speak(net: Net, data: bytes) -> bytes:
    """What node 0 answers node 1 to these bytes."""
    stream = await net.transports[1].open_stream(net.transports[0].peer_id, PROTOCOL)
    received = b""
    async with stream:
        try:
            await stream.send_all(data)
            await stream.send_eof()
            while piece := await stream.receive_some():
                received += piece
        except trio.BrokenResourceError:
            pass
    return received


async def test_nobody_makes_another_a_provider(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        key = cid(1).binary[-34:]
        others = (Contact(identity(9).peer_id, ("/memory/1",)), Contact(net.transports[1].peer_id))
        message = Message(kind=Kind.ADD_PROVIDER, key=key, providers=others)
        assert await speak(net, message.encode()) == b""
        assert [contact.peer for contact in net.nodes[0].records.get(key, 0)] == [net.transports[1].peer_id]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 50,
        b"\xff\xff\xff\x7f",
        b"\x03abc",
        Message(kind=Kind.PUT_VALUE, key=b"k").encode(),
        b"\x02\x08\x04",
    ],
    ids=["junk", "length", "protobuf", "value", "keyless"],
)
async def test_garbage_resets_its_stream_and_harms_nothing(autojump_clock, data):
    async with opened(2, [(0, 1)]) as net:
        await speak(net, data)
        ping = await speak(net, Message(kind=Kind.PING).encode())
        assert Message.decode(take_message(bytearray(ping)) or b"") == Message(kind=Kind.PING)
        assert net.transports[0].counters["handler_faults"] == 1


async def opened_and_silent(net: Net, count: int) -> list:
    """Streams of node 1 to node 0 on which a message begins and goes no further."""
    streams = []
    for _ in range(count):
        streams.append(await net.transports[1].open_stream(net.transports[0].peer_id, PROTOCOL))
        with suppress(trio.BrokenResourceError):  # above a few, they are reset
            await streams[-1].send_all(b"\x05")
    return streams


async def test_silent_streams_do_not_make_a_node_deaf(autojump_clock):
    async with opened(3, [(0, 1), (2, 0)]) as net:
        await opened_and_silent(net, service.STREAMS_A_PEER + service.STREAMS_WAITING + 8)
        await net.provide(2, cid(1))
        assert len(net.nodes[0].records) == 1


async def test_streams_of_one_peer_wait_for_their_turn_as_long_as_an_answer_is_waited_for(autojump_clock):
    async with opened(2, [(0, 1)]) as net:

        def faults() -> int:
            return net.transports[0].counters.get("handler_faults", 0)

        await opened_and_silent(net, service.STREAMS_A_PEER + service.STREAMS_WAITING)
        await trio.sleep(service.TURN_WITHIN / 2)
        assert faults() == 0
        await opened_and_silent(net, 5)  # for these there is no room
        await trio.sleep(0.1)
        assert faults() == 5
        await trio.sleep(service.TURN_WITHIN)
        assert faults() == 5 + service.STREAMS_WAITING
        await trio.sleep(service.IDLE)
        assert faults() == 5 + service.STREAMS_WAITING + service.STREAMS_A_PEER
        ping = Message(kind=Kind.PING).encode()
        assert await speak(net, ping) == ping


async def test_a_burst_of_streams_of_one_peer_is_answered_one_after_the_other(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        ping, answers = Message(kind=Kind.PING).encode(), []

        async def ask() -> None:
            answers.append(await speak(net, ping))

        async with trio.open_nursery() as nursery:
            for _ in range(service.STREAMS_A_PEER + service.STREAMS_WAITING):
                nursery.start_soon(ask)
        assert answers == [ping] * (service.STREAMS_A_PEER + service.STREAMS_WAITING)


async def test_a_peer_that_has_many_cids_to_find_at_once_finds_them_all(autojump_clock):
    async with opened(3, [(0, 1), (0, 2)]) as net:
        for number in range(200):
            net.roots[2].add(cid(number))
            net.nodes[2].provide(cid(number))
        await until(lambda: len(net.nodes[0].records) == 200)
        found: list[set[PeerID]] = []

        async def find(number: int) -> None:
            found.append((await net.find(1, cid(number)))[0])

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(find, number)
        assert found == [{net.transports[2].peer_id}] * 200
        assert net.nodes[1].counters["nodes_silent"] == 0


async def test_those_who_wait_to_ask_a_node_that_does_not_answer_give_up_with_the_first(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        streams = []

        async def silent(peer, stream):
            streams.append(stream)
            await trio.sleep_forever()

        net.transports[1].handle_streams(PROTOCOL, silent)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(net.find, 0, cid(number))
        assert trio.current_time() - began <= service.ANSWER_WITHIN
        assert len(streams) == service.STREAMS_A_PEER


async def test_one_peer_may_send_only_so_many_messages(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        ping = Message(kind=Kind.PING).encode()
        answers = len(await speak(net, ping * (service.BURST + 1000))) // len(ping)
        assert answers <= service.BURST
        await trio.sleep(10)
        assert len(await speak(net, ping * 100)) == 100 * len(ping)


async def test_a_search_ends_though_liars_name_ever_more_nodes(autojump_clock):
    async with opened(2, [(0, 1)]) as net:
        asked = []

        async def liar(peer, stream):
            buffer = bytearray(await stream.receive_some())
            request = Message.decode(take_message(buffer) or b"")
            asked.append(peer)
            near = tuple(
                Contact(identity(1000 + 20 * len(asked) + n).peer_id, ("/memory/2",)) for n in range(20)
            )
            await stream.send_all(Message(kind=request.kind, key=request.key, closer=near).encode())

        net.transports[1].handle_streams(PROTOCOL, liar)
        with trio.fail_after(service.ANSWER_WITHIN * service.MOST_ASKED):
            assert await net.find(0, cid(1)) == (set(), "the DHT (1 node)")


async def test_a_node_that_does_not_answer_holds_a_search_up_only_so_long(autojump_clock):
    async with opened(3, [(0, 1), (0, 2)]) as net:

        async def silent(peer, stream):
            await trio.sleep_forever()

        await net.provide(2, cid(1))
        net.transports[1].handle_streams(PROTOCOL, silent)
        began = trio.current_time()
        assert (await net.find(0, cid(1)))[0] == {net.transports[2].peer_id}
        assert trio.current_time() - began <= service.ANSWER_WITHIN
        began = trio.current_time()
        assert await net.find(0, cid(2)) == (set(), "the DHT (1 node)")
        assert trio.current_time() == began  # it is left alone for some time


# --- the table and the records --------------------------------------------------------------------


def test_the_nearest_are_those_of_the_smallest_distance():
    peers = [Contact(identity(number).peer_id) for number in range(50)]
    key = b"key"
    distances = sorted(position(peer_key(peer.peer) or b"") ^ position(key) for peer in peers)
    found = nearest(key, peers, 10)
    assert [position(peer_key(peer.peer) or b"") ^ position(key) for peer in found] == distances[:10]


def test_a_full_bucket_keeps_its_old_nodes_until_they_fail():
    known = Table(identity(0).peer_id)
    for number in range(1, 400):
        known.answered(Contact(identity(number).peer_id))
    before = known.contacts()
    assert len(before) < 399
    far = [contact for contact in before if contact.peer == identity(1).peer_id]
    known.answered(Contact(identity(500).peer_id))
    assert {c.peer for c in before} <= {c.peer for c in known.contacts()}
    for contact in before[:BUCKET]:
        known.failed(contact.peer)
    assert not {c.peer for c in before[:BUCKET]} & {c.peer for c in known.contacts()}
    assert far == [Contact(identity(1).peer_id)]


def test_records_expire_and_are_bounded(monkeypatch):
    monkeypatch.setattr(routing_table, "RECORDS", 50)
    monkeypatch.setattr(routing_table, "RECORDS_A_PEER", 30)
    records, alice, bob = Records(), Contact(identity(1).peer_id), Contact(identity(2).peer_id)
    assert records.add(b"k", alice, 0)
    assert records.get(b"k", routing_table.RECORD_LIFETIME - 1) == [alice]
    assert records.get(b"k", routing_table.RECORD_LIFETIME) == []
    assert len(records) == 0
    taken = [records.add(b"%d" % number, alice, 0) for number in range(100)]
    assert taken.count(True) == 30
    for number in range(100, 120):
        assert records.add(b"%d" % number, bob, 0)
    assert len(records) == 50
    assert records.add(b"new", bob, 1)
    assert len(records) == 50
    assert records.get(b"0", 1) == []
    crowd = [records.add(b"crowd", Contact(identity(number).peer_id), 2) for number in range(10, 40)]
    assert crowd.count(True) == routing_table.PROVIDERS_A_KEY
