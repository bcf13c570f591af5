"""Shared parts of the checks: connected peers, and functions that wait for arrivals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from itertools import pairwise
from random import Random
from typing import Final, TypeVar

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.interface import Broadcast, Incoming, PeerConnected, Transport

PATIENCE: Final = 20.0
"""Seconds that a check waits for something that must happen."""

STUCK_INTERVAL: Final = 0.5
"""Seconds without progress after which a sender is taken to wait for its reader."""

TOPIC: Final = "/bacalhau/1/conformance/jobs"
ECHO: Final = "/bacalhau/conformance/echo/1.0.0"
HOLD: Final = "/bacalhau/conformance/hold/1.0.0"

OpenTransport = Callable[[Identity], AbstractAsyncContextManager[Transport]]

_Arrival = TypeVar("_Arrival", bound=Incoming)


async def expect(transport: Transport, kind: type[_Arrival]) -> _Arrival:
    """The next arrival of this kind; others are ignored. Raises trio.TooSlowError."""
    with trio.fail_after(PATIENCE):
        async for arrival in transport.incoming:
            if isinstance(arrival, kind):
                return arrival
    raise AssertionError(f"incoming ended before a {kind.__name__} came")


@asynccontextmanager
async def open_connected(open_transport: OpenTransport, count: int = 2) -> AsyncIterator[Sequence[Transport]]:
    """Transports in a line: each is connected to the next, and both sides know it."""
    async with AsyncExitStack() as stack:
        line = [await stack.enter_async_context(open_transport(Identity.generate())) for _ in range(count)]
        for transport in line:
            await transport.subscribe(TOPIC)
        for here, there in pairwise(line):
            with trio.fail_after(PATIENCE):
                assert await here.connect(there.addresses[0]) == there.peer_id
            assert (await expect(here, PeerConnected)).peer == there.peer_id
            assert (await expect(there, PeerConnected)).peer == here.peer_id
        yield line


@contextmanager
def raises(error: type[Exception]) -> Iterator[None]:
    """The block must raise this error."""
    try:
        yield
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")


async def broadcast_until_received(
    author: Transport, listener: Transport, payload: bytes, topic: str = TOPIC
) -> Broadcast:
    """Repeat a broadcast until it arrives, since it may be lost while subscriptions spread."""

    async def repeat() -> None:
        while True:
            await author.broadcast(topic, payload)
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(repeat)
        received = await expect(listener, Broadcast)
        while received.payload != payload:
            received = await expect(listener, Broadcast)
        nursery.cancel_scope.cancel()
    return received


async def read_all(stream: HalfCloseableStream) -> bytes:
    """All bytes until the end of the stream."""
    content = bytearray()
    while chunk := await stream.receive_some():
        content += chunk
    return bytes(content)


def incompressible(size: int) -> bytes:
    """So many bytes that cannot be compressed, always the same."""
    return Random(size).randbytes(size)  # noqa: S311 - not a secret


async def until_stuck(progress: Callable[[], int]) -> None:
    """Wait until `progress` stays the same: a sender waits for its reader."""
    before = None
    while before != (now := progress()):
        before = now
        await trio.sleep(STUCK_INTERVAL)


async def echo(peer: PeerID, stream: HalfCloseableStream) -> None:
    """A handler that sends back what it reads."""
    while chunk := await stream.receive_some():
        await stream.send_all(chunk)


async def hold(peer: PeerID, stream: HalfCloseableStream) -> None:
    """A handler that does nothing until it is cancelled."""
    await trio.sleep_forever()
