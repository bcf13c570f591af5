"""Faults of py-libp2p 0.8.1 within one process: what our side of it does, and what the stock does.

A test "..._is_still_needed" sees the fault itself. When it fails, the work-around can go.
"""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError
from libp2p.tools.anyio_service import Service, background_trio_service
from multiaddr import Multiaddr

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.testing.transports import (
    ECHO,
    HOLD,
    TOPIC,
    broadcast_until_heard,
    echo,
    expect,
    hold,
    open_connected,
    read_all,
    refused,
)
from bacalhau_p2p.transports.interface import Broadcast, PeerConnected
from bacalhau_p2p.transports.libp2p.contained_tasks import ContainedTasks
from bacalhau_p2p.transports.libp2p.transport import open_libp2p
from tests.support.peers.stock_peers import yamux_pair

pytestmark = pytest.mark.network


@asynccontextmanager
async def connected_pair():
    async with open_connected(open_libp2p) as (one, other):
        yield one, other


# --- streams ----------------------------------------------------------------------------------------


async def test_a_reader_that_pauses_loses_nothing():
    content = bytes(20 * 1024 * 1024)  # more than yamux lets wait
    read_now = trio.Event()
    received = []

    async def serve(peer, stream):
        await read_now.wait()
        received.append(len(await read_all(stream)))

    async with connected_pair() as (one, other):
        other.handle_streams(HOLD, serve)
        stream = await one.open_stream(other.peer_id, HOLD)

        async def write():
            await stream.send_all(content)
            await stream.send_eof()
            assert await read_all(stream) == b""

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            with trio.fail_after(10):
                while stream._muxed.send_window:
                    await trio.lowlevel.checkpoint()
            read_now.set()
        await stream.aclose()
        assert received == [len(content)]


async def test_waiting_for_a_window_without_an_end_is_still_needed(autojump_clock):
    async with yamux_pair() as (one, _):
        stream = await one.open_stream()
        with pytest.raises(MuxedStreamError, match="5 seconds"):
            await stream.write(bytes(1024 * 1024))


async def test_a_reset_does_not_read_as_an_end():
    async def reset(peer, stream):
        await stream.receive_some()
        await stream.aclose()

    async with connected_pair() as (one, other):
        other.handle_streams(HOLD, reset)
        stream = await one.open_stream(other.peer_id, HOLD)
        await stream.send_all(b"go")
        with refused(trio.BrokenResourceError):
            await stream.receive_some()


async def test_telling_a_reset_from_an_end_is_still_needed():
    async with yamux_pair() as (one, other):
        stream = await one.open_stream()
        await (await other.accept_stream()).reset()
        with pytest.raises(MuxedStreamEOF):
            await stream.read(1)


async def test_writes_and_reads_cancelled_at_any_moment_leave_the_connection_whole():
    async def trickle(peer, stream):
        while await stream.receive_some(1000):
            await stream.send_all(bytes(3000))

    async with connected_pair() as (one, other):
        other.handle_streams(HOLD, trickle)
        other.handle_streams(ECHO, echo)
        good = await one.open_stream(other.peer_id, ECHO)
        for number in range(40):
            torn = await one.open_stream(other.peer_id, HOLD)
            with trio.move_on_after(number / 4000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(torn.send_all, bytes(2_000_000))
                    nursery.start_soon(read_all, torn)
            await torn.aclose()
            await good.send_all(b"%d" % number)
            assert await good.receive_some() == b"%d" % number
        await good.aclose()


async def test_bulk_reading_gives_its_window_back():
    async with connected_pair() as (one, other):
        other.handle_streams(ECHO, echo)
        stream = await one.open_stream(other.peer_id, ECHO)
        for number in range(400):  # 8 MB each way through windows of 256 KiB, in small pieces
            payload = number.to_bytes(2, "big") * 10_000
            await stream.send_all(payload)
            received = bytearray()
            with trio.fail_after(5):
                while len(received) < len(payload):
                    received += await stream.receive_some(7000)
            assert received == payload
        await stream.aclose()


async def test_streams_leave_nothing_behind_on_their_connection():
    async with connected_pair() as (one, other):
        other.handle_streams(ECHO, echo)
        muxed = None
        for _ in range(30):
            stream = await one.open_stream(other.peer_id, ECHO)
            muxed = stream._muxed.muxed_conn
            await stream.send_all(b"question")
            await stream.send_eof()
            assert await read_all(stream) == b"question"
            await stream.aclose()
        assert len(muxed.streams) < 10


# --- gossip -----------------------------------------------------------------------------------------


async def test_large_messages_replayed_to_a_newcomer_do_not_garble_those_sent_meanwhile():
    payloads = [bytes([number]) * 400_000 for number in range(6)]
    async with open_libp2p(Identity.generate()) as author, open_libp2p(Identity.generate()) as listener:
        await author.subscribe(TOPIC)
        for payload in payloads[:3]:
            await author.broadcast(TOPIC, payload)
        await listener.subscribe(TOPIC)
        await listener.connect(author.addresses[0])
        await expect(author, PeerConnected)
        for payload in payloads[3:]:
            await author.broadcast(TOPIC, payload)
        heard = {(await expect(listener, Broadcast)).payload for _ in payloads}
        assert heard == set(payloads)


async def test_gossip_moves_to_another_connection_when_its_own_is_lost():
    async with connected_pair() as (one, other):
        swarm, peer = one._swarm, ID.from_base58(other.peer_id)
        first = swarm.get_connections(peer)[0]
        await swarm.dial_addr(Multiaddr(other.addresses[0]), peer)
        assert len(swarm.get_connections(peer)) == 2
        await first.close()
        for author, listener in ((one, other), (other, one)):
            heard = await broadcast_until_heard(author, listener, b"still there")
            assert heard.author == author.peer_id
        assert set(one.peers) == {other.peer_id}


# --- tasks and sockets ------------------------------------------------------------------------------


class _Spawner(Service):
    """A service of which one task starts `count` others, one after the other."""

    def __init__(self, count: int, counters: Counter[str] | None) -> None:
        self.count = count
        self.counters = counters
        self.ran = 0
        self.done = trio.Event()

    async def run(self) -> None:
        manager = self.manager if self.counters is None else ContainedTasks(self.manager, self.counters)
        for _ in range(self.count):
            finished = trio.Event()
            manager.run_task(self.work, finished)
            await finished.wait()
        self.done.set()
        await self.manager.wait_finished()

    async def work(self, finished: trio.Event) -> None:
        self.ran += 1
        finished.set()
        raise RuntimeError("a fault in one task")


async def test_a_service_starts_any_number_of_tasks_and_survives_their_faults():
    service = _Spawner(1100, Counter())
    async with background_trio_service(service):
        await service.done.wait()
    assert service.ran == 1100
    assert service.counters == {"task_faults": 1100}


async def test_containing_tasks_is_still_needed():
    service = _Spawner(10, None)
    with pytest.raises(ExceptionGroup):
        async with background_trio_service(service):
            await trio.sleep_forever()
    assert service.ran < 10


def sockets() -> int:
    return sum(path.is_socket() for path in Path("/proc/self/fd").iterdir())


async def test_no_task_and_no_socket_is_left():
    before = sockets(), trio.lowlevel.current_statistics().tasks_living
    for _ in range(2):
        async with open_connected(open_libp2p, 3) as (one, middle, _):
            middle.handle_streams(HOLD, hold)
            await one.open_stream(middle.peer_id, HOLD)
            await one.send(middle.peer_id, b"last")
        assert (sockets(), trio.lowlevel.current_statistics().tasks_living) == before


async def test_what_was_sent_before_the_end_arrives():
    async with open_libp2p(Identity.generate()) as listener:
        async with open_libp2p(Identity.generate()) as author:
            await author.connect(listener.addresses[0])
            for number in range(100):
                await author.send(listener.peer_id, b"%d" % number)
        frames = []
        with trio.fail_after(10):
            while len(frames) < 100:
                item = await listener.incoming.receive()
                frames += [item.payload] if hasattr(item, "payload") else []
        assert frames == [b"%d" % number for number in range(100)]


async def test_an_error_in_the_block_arrives_and_leaves_nothing():
    before = sockets()
    with pytest.raises(RuntimeError, match="a fault of the node"):
        async with open_libp2p(Identity.generate()):
            raise RuntimeError("a fault of the node")
    assert sockets() == before


# --- settings ---------------------------------------------------------------------------------------


async def test_a_port_in_use_is_a_settings_error_though_py_libp2p_would_share_it():
    async with open_libp2p(Identity.generate()) as first:
        address = first.addresses[0].partition("/p2p/")[0]
        with pytest.raises(SettingsError, match="in use"):
            async with open_libp2p(Identity.generate(), listen=[address]):
                pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"listen": ["nonsense"]},
        {"listen": ["/ip4/127.0.0.1/udp/4001/quic-v1"]},
        {"listen": ["/ip4/127.0.0.1/tcp/4001/ws"]},
        {"listen": ["/ip4/203.0.113.1/tcp/4001"]},
        {"announce": ["127.0.0.1:4001"]},
        {"bootstrap": ["/ip4/127.0.0.1/tcp/4001"]},
        {"bootstrap": ["/ip4/127.0.0.1/tcp/4001/p2p/nobody"]},
    ],
)
async def test_addresses_that_cannot_be_are_settings_errors(wrong):
    with pytest.raises(SettingsError):
        async with open_libp2p(Identity.generate(), **wrong):
            pass
