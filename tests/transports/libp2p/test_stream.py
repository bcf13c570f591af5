"""Streams, where py-libp2p 0.8.1 fails. A test "..._is_still_needed" shows the fault of py-libp2p."""

from __future__ import annotations

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError

from bacalhau_p2p.testing.transports import ECHO, HOLD, echo, open_connected, raises, read_all
from bacalhau_p2p.transports.libp2p.transport import open_libp2p
from tests.support.peers.stock_peers import yamux_pair

pytestmark = pytest.mark.network


async def test_a_reader_that_pauses_loses_nothing():
    content = bytes(20 * 1024 * 1024)  # more than the largest window
    read_now = trio.Event()
    received = []

    async def serve(peer, stream):
        await read_now.wait()
        received.append(len(await read_all(stream)))

    async with open_connected(open_libp2p) as (one, other):
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


async def test_waiting_for_a_window_without_a_timeout_is_still_needed(autojump_clock):
    async with yamux_pair() as (one, _):
        stream = await one.open_stream()
        with pytest.raises(MuxedStreamError, match="5 seconds"):
            await stream.write(bytes(1024 * 1024))


async def test_a_reset_does_not_look_like_an_end_of_file():
    async def reset(peer, stream):
        await stream.receive_some()
        await stream.aclose()

    async with open_connected(open_libp2p) as (one, other):
        other.handle_streams(HOLD, reset)
        stream = await one.open_stream(other.peer_id, HOLD)
        await stream.send_all(b"go")
        with raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_telling_a_reset_from_an_end_of_file_is_still_needed():
    async with yamux_pair() as (one, other):
        stream = await one.open_stream()
        await (await other.accept_stream()).reset()
        with pytest.raises(MuxedStreamEOF):
            await stream.read(1)


async def test_writes_and_reads_cancelled_at_any_moment_leave_the_connection_intact():
    async def trickle(peer, stream):
        while await stream.receive_some(1000):
            await stream.send_all(bytes(3000))

    async with open_connected(open_libp2p) as (one, other):
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


async def test_reading_returns_the_window():
    async with open_connected(open_libp2p) as (one, other):
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


async def test_finished_streams_leave_nothing_on_their_connection():
    async with open_connected(open_libp2p) as (one, other):
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
