"""Cancelled or failed calls do not harm the transport, and nothing outlives its block."""

from __future__ import annotations

import trio

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.testing.transports.bench import (
    ECHO,
    HOLD,
    PATIENCE,
    TOPIC,
    OpenTransport,
    echo,
    expect,
    hold,
    open_connected,
    raises,
)
from bacalhau_p2p.transports.interface import DirectFrame


async def check_cancelling_leaves_the_transport_usable(open_transport: OpenTransport) -> None:
    unknown = Identity.generate().peer_id
    async with open_connected(open_transport) as (a, b):
        b.handle_streams(ECHO, echo)
        with trio.fail_after(PATIENCE):
            stream = await a.open_stream(b.peer_id, ECHO)
            with trio.move_on_after(0.05) as waiting:
                await stream.receive_some()
            assert waiting.cancelled_caught
            for operation in (
                lambda: a.send(b.peer_id, b"may arrive"),
                lambda: a.open_stream(b.peer_id, ECHO),
                lambda: a.connect(b.addresses[0].replace(b.peer_id, unknown)),
                lambda: a.broadcast(TOPIC, b"may arrive"),
            ):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await operation()
            await stream.send_all(b"unharmed")
            assert await stream.receive_some() == b"unharmed"
            await stream.aclose()
            await a.send(b.peer_id, b"next")
        while (await expect(b, DirectFrame)).payload != b"next":
            pass


async def check_an_error_in_the_block_comes_out_as_it_was_raised(open_transport: OpenTransport) -> None:
    with raises(LookupError):
        async with open_transport(Identity.generate()):
            raise LookupError("the caller's own")


async def check_no_task_is_left_after_the_block(open_transport: OpenTransport) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_connected(open_transport) as (a, b):
        b.handle_streams(HOLD, hold)
        stream = await a.open_stream(b.peer_id, HOLD)
        await a.send(b.peer_id, b"last")
        incoming = a.incoming
    assert trio.lowlevel.current_statistics().tasks_living == before
    with trio.fail_after(PATIENCE):
        with raises(trio.EndOfChannel):
            while True:
                await incoming.receive()
        with raises(trio.BrokenResourceError):
            await stream.receive_some()
