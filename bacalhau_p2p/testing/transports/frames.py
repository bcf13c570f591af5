"""Direct frames arrive once, complete and in order, and wait for their reader."""

from __future__ import annotations

import trio

from bacalhau_p2p.errors import MessageTooLarge
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.testing.transports.bench import (
    PATIENCE,
    OpenTransport,
    expect,
    incompressible,
    open_connected,
    raises,
    until_stuck,
)
from bacalhau_p2p.transports.interface import MAX_FRAME, DirectFrame, Transport


async def check_frames_of_both_directions_arrive_in_order(open_transport: OpenTransport) -> None:
    count = 500

    async def talk(transport: Transport, to: PeerID) -> None:
        for number in range(count):
            await transport.send(to, b"%d " % number * (number % 50))

    async def listen(transport: Transport, author: PeerID) -> None:
        for number in range(count):
            assert await expect(transport, DirectFrame) == DirectFrame(
                author, b"%d " % number * (number % 50)
            )

    async with open_connected(open_transport) as (a, b), trio.open_nursery() as nursery:
        # Both send first, at the same time. Frames must stay in order even if that opens two streams.
        nursery.start_soon(talk, a, b.peer_id)
        nursery.start_soon(talk, b, a.peer_id)
        nursery.start_soon(listen, a, b.peer_id)
        nursery.start_soon(listen, b, a.peer_id)


async def check_the_largest_frame_arrives_and_a_larger_one_is_rejected(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        payload = incompressible(MAX_FRAME)
        for frame in (b"", payload, b"after"):
            await a.send(b.peer_id, frame)
        for frame in (b"", payload, b"after"):
            assert (await expect(b, DirectFrame)).payload == frame
        with raises(MessageTooLarge):
            await a.send(b.peer_id, payload + b"x")


async def check_frames_wait_for_a_reader_and_none_is_lost(open_transport: OpenTransport) -> None:
    count, size = 4096, 8192  # 32 MiB: more than all buffers on the way together
    sent = 0

    async def talk(transport: Transport, to: PeerID) -> None:
        nonlocal sent
        for number in range(count):
            await transport.send(to, number.to_bytes(4, "big") * (size // 4))
            sent += 1

    async with open_connected(open_transport) as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(talk, a, b.peer_id)
        with trio.fail_after(PATIENCE):
            await until_stuck(lambda: sent)
        assert 0 < sent < count
        for number in range(count):
            assert (await expect(b, DirectFrame)).payload[:4] == number.to_bytes(4, "big")


async def check_send_now_sends_at_once_or_not_at_all(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        await a.send(b.peer_id, b"first")
        await expect(b, DirectFrame)
        assert a.send_now(b.peer_id, b"second", b"third")
        assert (await expect(b, DirectFrame)).payload == b"second"
        assert (await expect(b, DirectFrame)).payload == b"third"
        assert not a.send_now(Identity.generate().peer_id, b"unknown peer")
        with raises(MessageTooLarge):
            a.send_now(b.peer_id, bytes(MAX_FRAME + 1))
