"""Our Yamux, with py-libp2p's own and with peers that break the protocol at the other end.

Covers also `yamux.stream`, `yamux.writer`, and `tcp` below them.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.exceptions import BaseLibp2pError
from multiaddr import Multiaddr

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.testing.transports import ECHO, HOLD, echo, expect, hold, open_connected, read_all
from bacalhau_p2p.transports.interface import PeerConnected, PeerDisconnected
from bacalhau_p2p.transports.libp2p.tcp import RECEIVE_BUFFER
from bacalhau_p2p.transports.libp2p.transport import open_libp2p
from bacalhau_p2p.transports.libp2p.yamux import connection
from bacalhau_p2p.transports.libp2p.yamux.connection import MAX_INBOUND, WINDOW_BUDGET
from bacalhau_p2p.transports.libp2p.yamux.frames import (
    DATA,
    FIN,
    FIRST_WINDOW,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    FrameParser,
    encode_header,
)
from bacalhau_p2p.transports.libp2p.yamux.stream import MAX_WINDOW
from bacalhau_p2p.transports.libp2p.yamux.writer import MAX_ANSWERS
from tests.support.peers.stock_peers import secured, select, stream_on, yamux_pair
from tests.support.waiting import until

pytestmark = pytest.mark.network
YAMUX = select("/yamux/1.0.0")
PATIENCE = 20


@asynccontextmanager
async def node():
    async with open_libp2p(Identity.generate()) as transport:
        transport.handle_streams(ECHO, echo)
        with trio.fail_after(PATIENCE):
            yield transport


@asynccontextmanager
async def raw_yamux(address: str):
    """A connection on which frames are written by hand, and a function that reads the frames of the node."""
    async with secured(address) as (conn, _):
        await conn.write(YAMUX)
        answer = b""
        while len(answer) < len(YAMUX):
            answer += await conn.read(len(YAMUX) - len(answer))
        assert answer == YAMUX
        parser = FrameParser()
        waiting = []

        async def receive(kind: int):
            while True:
                for index, frame in enumerate(waiting):
                    if frame.kind == kind:
                        return waiting.pop(index)
                waiting.extend(parser.feed(await conn.read()))

        yield conn, receive


async def ends_after(conn, sent: bytes) -> bool:
    """Whether the node closes this connection after these bytes, or before it has them all."""
    try:
        await conn.write(sent)
        while await conn.read():
            pass
    except BaseLibp2pError:
        pass
    return True


async def test_a_stock_peer_that_dials_us_exchanges_bulk_with_us():
    content = secrets.token_bytes(3_000_000)
    async with node() as transport, stream_on(transport.addresses[0], ECHO) as stream:
        received = bytearray()

        async def write():
            await stream.write(content)
            await stream.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while len(received) < len(content):
                received += await stream.read(65536)
        assert received == content


async def test_a_stock_host_that_we_dial_exchanges_bulk_with_us():
    content = secrets.token_bytes(3_000_000)

    async def stock_echo(stream):
        while True:
            await stream.write(await stream.read(65536))

    host = new_host(create_new_key_pair(secrets.token_bytes(32)))
    host.set_stream_handler(ECHO, stock_echo)
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]), node() as transport:
        peer = await transport.connect(str(host.get_addrs()[0]))
        stream = await transport.open_stream(peer, ECHO)
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, content)
            while len(received) < len(content):
                received += await stream.receive_some()
        assert received == content
        await stream.aclose()
        await transport.disconnect(peer)


async def test_a_peer_that_exceeds_its_window_loses_only_its_own_connection():
    async with node() as transport, stream_on(transport.addresses[0], ECHO) as bystander:
        transport.handle_streams(HOLD, hold)
        async with raw_yamux(transport.addresses[0]) as (conn, _):
            await conn.write(encode_header(WINDOW_UPDATE, SYN, 1, 0))
            size = FIRST_WINDOW + 1
            content = select(HOLD).ljust(size, b"x")
            assert await ends_after(conn, encode_header(DATA, 0, 1, size) + content)
        assert transport.counters["muxer_faults"] == 1
        await bystander.write(b"still here")
        assert await bystander.read(100) == b"still here"


async def test_enforcing_the_window_is_still_needed():
    # py-libp2p accepts it and only logs it.
    async with yamux_pair() as (one, other):
        stream = await one.open_stream()
        await one._write_frame(encode_header(DATA, 0, stream.stream_id, 300_000) + bytes(300_000))
        accepted = await other.accept_stream()
        with trio.fail_after(PATIENCE):
            while len(other.stream_buffers[accepted.stream_id]) < 300_000:
                await trio.lowlevel.checkpoint()
        assert not other.is_closed


@pytest.mark.parametrize(
    "sent",
    [
        b"\x01" + bytes(11),  # a version that does not exist
        b"\x00\x09" + bytes(10),  # a type that does not exist
        encode_header(DATA, SYN, 2, 0),  # an id that only we may open
        encode_header(WINDOW_UPDATE, SYN, 0, 0),
        encode_header(WINDOW_UPDATE, SYN, 1, 0) * 2,  # opened twice
        encode_header(DATA, SYN, 1, 0xFFFFFFFF),
        encode_header(DATA, SYN | FIN, 1, 0) + encode_header(DATA, 0, 1, 1) + b"x",  # data after the end
    ],
)
async def test_a_peer_that_breaks_the_framing_loses_only_its_own_connection(sent):
    async with node() as transport, stream_on(transport.addresses[0], ECHO) as bystander:
        async with raw_yamux(transport.addresses[0]) as (conn, _):
            assert await ends_after(conn, sent)
        assert transport.counters["muxer_faults"] == 1
        assert [*transport.budgets.offences.worst().values()] == [{"muxer_faults": 1}]
        await bystander.write(b"still here")
        assert await bystander.read(100) == b"still here"


async def test_many_frames_in_one_write_are_all_handled():
    question = select(ECHO)
    opened = [2 * number + 1 for number in range(20)]
    async with node() as transport, raw_yamux(transport.addresses[0]) as (conn, receive):
        await conn.write(
            b"".join(
                encode_header(PING, SYN, 0, 100 + stream_id)
                + encode_header(DATA, SYN, stream_id, len(question))
                + question
                + encode_header(DATA, FIN, stream_id, 4)
                + b"%4d" % stream_id
                for stream_id in opened
            )
        )
        answers = {}
        pongs = []
        while any(not answers.get(stream_id, b"").endswith(b"%4d" % stream_id) for stream_id in opened):
            frame = await receive(DATA)
            answers[frame.stream_id] = answers.get(frame.stream_id, b"") + frame.payload
        while len(pongs) < 20:
            frame = await receive(PING)
            if not frame.flags & SYN:  # otherwise it is a ping of the node
                pongs.append(frame.length)
        assert pongs == [100 + stream_id for stream_id in opened]


async def test_data_for_a_stream_that_was_reset_is_ignored():
    async with node() as transport, raw_yamux(transport.addresses[0]) as (conn, receive):
        await conn.write(encode_header(WINDOW_UPDATE, SYN, 1, 0) + encode_header(WINDOW_UPDATE, RST, 1, 0))
        await conn.write(encode_header(DATA, 0, 1, 5) + b"stray" + encode_header(PING, SYN, 0, 42))
        while (frame := await receive(PING)).length != 42:
            pass
        assert frame.flags & SYN == 0


async def test_more_streams_than_may_be_open_are_reset():
    async with node() as transport, raw_yamux(transport.addresses[0]) as (conn, receive):
        count = MAX_INBOUND + 10
        await conn.write(
            b"".join(encode_header(WINDOW_UPDATE, SYN, 2 * number + 1, 0) for number in range(count))
        )
        refused = set()
        while len(refused) < 10:
            frame = await receive(WINDOW_UPDATE)
            if frame.flags & RST:
                refused.add(frame.stream_id)
        assert min(refused) > 100
        assert transport.counters["streams_refused"] >= 10
        (offences,) = transport.budgets.offences.worst().values()
        assert offences["streams_refused"] >= 10


async def test_a_stopped_reader_buffers_at_most_its_window():
    """Even when it was fast before, so that its window grew."""
    fast = 40 * 1024 * 1024
    reading = []
    stopped = trio.Event()

    async def read_and_stop(peer, stream):
        reading.append(stream._muxed)
        left = fast
        while left:
            left -= len(await stream.receive_some(left))
        stopped.set()
        await trio.sleep_forever()

    async with open_connected(open_libp2p) as (one, other):
        other.handle_streams(HOLD, read_and_stop)
        stream = await one.open_stream(other.peer_id, HOLD)
        with trio.fail_after(PATIENCE):
            await stream.send_all(bytes(fast))
            await stopped.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, bytes(fast))
                while stream._muxed.send_window:
                    await trio.lowlevel.checkpoint()
                while reading[0].recv_window:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        assert FIRST_WINDOW < reading[0].window <= MAX_WINDOW
        # The last bytes before it stopped, less than half of a window, were not returned to the peer.
        assert reading[0].window // 2 <= len(reading[0].received) <= reading[0].window


async def test_the_windows_of_a_connection_share_one_budget():
    async with open_connected(open_libp2p) as (one, other):
        other.handle_streams(ECHO, echo)
        conn = None

        async def converse():
            nonlocal conn
            async with await one.open_stream(other.peer_id, ECHO) as stream:
                conn = stream._muxed.muxed_conn
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.send_all, bytes(4_000_000))
                    left = 4_000_000
                    while left:
                        left -= len(await stream.receive_some())
                grown = sum(muxed.window - FIRST_WINDOW for muxed in conn.streams.values())
                assert grown + conn.window_budget == WINDOW_BUDGET
                assert conn.window_budget >= 0

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(converse)
        grown = sum(muxed.window - FIRST_WINDOW for muxed in conn.streams.values())
        assert grown + conn.window_budget == WINDOW_BUDGET


async def test_a_write_cancelled_in_the_middle_leaves_the_connection_usable():
    received = []

    async def stall(peer, stream):
        received.append(len(await stream.receive_some(1)))
        await trio.sleep_forever()

    async with open_connected(open_libp2p) as (one, other):
        other.handle_streams(HOLD, stall)
        other.handle_streams(ECHO, echo)
        good = await one.open_stream(other.peer_id, ECHO)
        torn = await one.open_stream(other.peer_id, HOLD)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(torn.send_all, bytes(10_000_000))
                while torn._muxed.send_window:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await good.send_all(b"unharmed")
            assert await good.receive_some() == b"unharmed"
        await torn.aclose()
        await good.aclose()


async def test_a_write_cancelled_on_a_full_socket_leaves_whole_frames():
    writers = []

    async def write(peer, stream):
        with trio.CancelScope() as scope:
            writers.append((scope, stream._muxed.muxed_conn))
            await stream.send_all(bytes(2**28))
        assert scope.cancelled_caught
        await trio.sleep_forever()

    async with node() as transport, raw_yamux(transport.addresses[0]) as (conn, receive):
        transport.handle_streams(HOLD, write)
        await conn.write(
            encode_header(WINDOW_UPDATE, SYN, 1, 2**29) + encode_header(DATA, 0, 1, len(select(HOLD)))
        )
        await conn.write(select(HOLD))
        while not writers or not writers[0][1].writer.backlog:  # as we read nothing
            await trio.lowlevel.checkpoint()
        writers[0][0].cancel()
        await conn.write(encode_header(PING, SYN, 0, 4711))
        while (frame := await receive(PING)).length != 4711:
            pass
        assert not frame.flags & SYN
        assert not writers[0][1].writer.backlog


async def test_a_peer_that_does_not_read_its_answers_is_not_read():
    async with node() as transport, raw_yamux(transport.addresses[0]) as (conn, _):
        muxed = the_connection(transport)
        muxed.secured_conn.tcp._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        pings = b"".join(encode_header(PING, SYN, 0, number) for number in range(50_000))

        async def ask():
            while True:
                await conn.write(pings)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not muxed.writer._drained.statistics().tasks_waiting:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked(0.2)  # so the pings are stuck too
            assert MAX_ANSWERS < muxed.writer.backlog < MAX_ANSWERS + 2 * RECEIVE_BUFFER
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "frame",
    [
        encode_header(WINDOW_UPDATE, 0, 1, 1),
        encode_header(DATA, 0, 77, 1) + b"x",
        encode_header(DATA, 0, 77, 300) + bytes(300),
        encode_header(DATA, 0, 1, 0),
    ],
    ids=["updates", "for nobody", "much for nobody", "empty"],
)
async def test_a_peer_whose_frames_bring_nothing_is_read_later_and_others_are_not(frame):
    async with node() as transport, raw_yamux(transport.addresses[0]) as (conn, _):
        peer = (await expect(transport, PeerConnected)).peer
        await conn.write(encode_header(WINDOW_UPDATE, SYN, 1, 0))

        async def flood():
            with suppress(BaseLibp2pError):
                while True:
                    await conn.write(frame * 1000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await until(lambda: transport.counters.get("muxer_rests"))
            assert transport.budgets.offences.of(peer)["muxer_rests"] > 0
            async with stream_on(transport.addresses[0], ECHO) as other:
                await other.write(b"unharmed")
                assert await other.read(8) == b"unharmed"
            await transport.disconnect(peer)  # does not wait for the end of the rest
            assert peer not in transport.peers
            nursery.cancel_scope.cancel()


async def test_a_transfer_is_never_told_to_rest(monkeypatch):
    monkeypatch.setattr(connection, "IDLE_FRAMES_PER_SECOND", 1e-9)
    monkeypatch.setattr(connection, "IDLE_FRAME_BURST", 2_000)
    async with open_connected(open_libp2p) as (one, other):
        other.handle_streams(ECHO, echo)
        async with await one.open_stream(other.peer_id, ECHO) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(30_000_000))
            left = 30_000_000
            while left:
                left -= len(await stream.receive_some())
        assert not one.counters.get("muxer_rests")
        assert not other.counters.get("muxer_rests")


async def test_both_sides_can_send_at_full_speed_at_once():
    """With sockets so small that each side always has data that waits for the other side to read."""
    size, streams = 3_000_000, 4
    received = []

    async def sink(peer, stream):
        received.append(len(await read_all(stream)))

    async def fill(author, peer):
        async with await author.open_stream(peer, HOLD) as stream:
            await stream.send_all(bytes(size))
            await stream.send_eof()
            assert await read_all(stream) == b""

    async with open_connected(open_libp2p) as (one, other):
        for transport in (one, other):
            transport.handle_streams(HOLD, sink)
            sock = the_connection(transport).secured_conn.tcp._socket
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        with trio.fail_after(3 * PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(streams):
                    nursery.start_soon(fill, one, other.peer_id)
                    nursery.start_soon(fill, other, one.peer_id)
        assert received == [size] * 2 * streams


async def test_a_peer_that_does_not_read_can_be_disconnected():
    writing = trio.Event()

    async def write(peer, stream):
        writing.set()
        await stream.send_all(bytes(2**28))

    async with node() as transport, raw_yamux(transport.addresses[0]) as (conn, _):
        transport.handle_streams(HOLD, write)
        peer = (await expect(transport, PeerConnected)).peer
        question = select(HOLD)
        await conn.write(encode_header(WINDOW_UPDATE, SYN, 1, 2**29))
        await conn.write(encode_header(DATA, 0, 1, len(question)) + question)
        await writing.wait()
        while not the_connection(transport).writer.backlog:
            await trio.lowlevel.checkpoint()
        await transport.disconnect(peer)
        assert (await expect(transport, PeerDisconnected)).peer == peer
        assert peer not in transport.peers


def the_connection(transport):
    (conn,) = [conn for conns in transport._swarm.connections.values() for conn in conns]
    return conn.muxed_conn


async def test_streams_and_pings_end_with_their_connection():
    async with open_connected(open_libp2p) as (one, other):
        other.handle_streams(ECHO, echo)
        stream = await one.open_stream(other.peer_id, ECHO)
        conn = stream._muxed.muxed_conn
        await other.disconnect(one.peer_id)
        await expect(one, PeerDisconnected)
        assert not conn.streams
        with trio.fail_after(PATIENCE):
            assert not await conn.ping(PATIENCE * 2)
        with pytest.raises(trio.BrokenResourceError):
            stream.send_now(b"anybody?")
        with pytest.raises(trio.BrokenResourceError):
            await read_all(stream)
