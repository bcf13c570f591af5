"""Streams work in both directions, wait for their reader, and tell an end from a reset."""

from __future__ import annotations

import hashlib

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.testing.transports.bench import (
    ECHO,
    HOLD,
    PATIENCE,
    OpenTransport,
    echo,
    hold,
    incompressible,
    open_connected,
    raises,
    read_all,
    until_stuck,
)
from bacalhau_p2p.transports.interface import Transport


async def check_a_stream_works_in_both_directions_and_ends(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        served: list[PeerID] = []

        async def serve(peer: PeerID, stream: HalfCloseableStream) -> None:
            served.append(peer)
            await stream.send_all(b"greeting ")
            await stream.send_all(await read_all(stream))

        b.handle_streams(ECHO, serve)
        with trio.fail_after(PATIENCE):
            stream = await a.open_stream(b.peer_id, ECHO)
            await stream.send_all(b"and ")
            await stream.send_all(b"answer")
            await stream.send_eof()
            assert await read_all(stream) == b"greeting and answer"
            assert await stream.receive_some() == b""
            await stream.aclose()
        assert served == [a.peer_id]


async def check_a_large_transfer_waits_for_its_reader(open_transport: OpenTransport) -> None:
    content = incompressible(8 * 1024 * 1024)
    start_reading = trio.Event()
    digests: list[str] = []
    written = 0

    async def serve(peer: PeerID, stream: HalfCloseableStream) -> None:
        await start_reading.wait()
        digests.append(hashlib.sha256(await read_all(stream)).hexdigest())

    async def write(stream: HalfCloseableStream) -> None:
        nonlocal written
        for start in range(0, len(content), 65536):
            await stream.send_all(content[start : start + 65536])
            written += 65536
        await stream.send_eof()

    async with open_connected(open_transport) as (a, b):
        b.handle_streams(HOLD, serve)
        stream = await a.open_stream(b.peer_id, HOLD)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, stream)
                await until_stuck(lambda: written)
                assert 0 < written < len(content)
                start_reading.set()
            assert await stream.receive_some() == b""
        await stream.aclose()
        assert digests == [hashlib.sha256(content).hexdigest()]


async def check_peers_with_an_open_stream_are_transferring(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        b.handle_streams(ECHO, echo)
        with trio.fail_after(PATIENCE):
            while a.transferring or b.transferring:  # noqa: ASYNC110 - a new connection negotiates
                await trio.sleep(0.01)
            async with await a.open_stream(b.peer_id, ECHO) as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"x"
                assert list(a.transferring) == [b.peer_id]
                assert list(b.transferring) == [a.peer_id]
                await stream.send_eof()
                assert await stream.receive_some() == b""
            while a.transferring or b.transferring:  # noqa: ASYNC110 - until both sides have closed it
                await trio.sleep(0.01)


async def check_closing_without_eof_resets(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        broken = trio.Event()

        async def serve(peer: PeerID, stream: HalfCloseableStream) -> None:
            with raises(trio.BrokenResourceError):
                await read_all(stream)
            broken.set()

        b.handle_streams(HOLD, serve)
        with trio.fail_after(PATIENCE):
            stream = await a.open_stream(b.peer_id, HOLD)
            await stream.send_all(b"half of it")
            await stream.aclose()
            await broken.wait()
            with raises(trio.ClosedResourceError):
                await stream.send_all(b"more")
            with raises(trio.ClosedResourceError):
                await stream.receive_some()


async def check_a_handler_that_raises_harms_only_its_stream(open_transport: OpenTransport) -> None:
    async def fail(peer: PeerID, stream: HalfCloseableStream) -> None:
        await stream.receive_some()
        raise RuntimeError("this handler fails")

    async with open_connected(open_transport) as (a, b):
        b.handle_streams(HOLD, fail)
        b.handle_streams(ECHO, echo)
        with trio.fail_after(PATIENCE):
            good = await a.open_stream(b.peer_id, ECHO)
            bad = await a.open_stream(b.peer_id, HOLD)
            await bad.send_all(b"go")
            with raises(trio.BrokenResourceError):
                await bad.receive_some()
            assert b.counters.get("handler_faults") == 1
            await good.send_all(b"still here")
            assert await good.receive_some() == b"still here"
            await good.aclose()


async def check_streams_break_with_their_connection(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        b.handle_streams(HOLD, hold)
        with trio.fail_after(PATIENCE):
            stream = await a.open_stream(b.peer_id, HOLD)
            await b.disconnect(a.peer_id)
            with raises(trio.BrokenResourceError):
                await stream.receive_some()
            with raises(trio.BrokenResourceError):
                await stream.wait_send_all_might_not_block()
            with raises(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"into the void")


async def check_many_streams_work_at_once(open_transport: OpenTransport) -> None:
    async def ask(transport: Transport, peer: PeerID, question: bytes) -> None:
        stream = await transport.open_stream(peer, ECHO)
        async with stream:
            await stream.send_all(question)
            await stream.send_eof()
            assert await read_all(stream) == question

    async with open_connected(open_transport) as (a, b):
        a.handle_streams(ECHO, echo)
        b.handle_streams(ECHO, echo)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(ask, a, b.peer_id, b"%d" % number * 5000)
                    nursery.start_soon(ask, b, a.peer_id, b"%d" % number * 5000)
