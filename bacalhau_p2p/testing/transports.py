"""What every transport must do: run each of `CHECKS` on yours.

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_transport(check):
        await check(open_my_transport)

`open_my_transport(identity)` opens a transport that knows nobody yet. A check raises AssertionError,
or trio.TooSlowError when something that must happen did not within `PATIENCE` seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from itertools import pairwise
from random import Random
from typing import Final, TypeVar

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import MessageTooLarge, PeerUnreachable
from bacalhau_p2p.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.interface import (
    MAX_BROADCAST,
    MAX_FRAME,
    Broadcast,
    DirectFrame,
    Incoming,
    PeerConnected,
    PeerDisconnected,
    Transport,
)

PATIENCE: Final = 20.0
"""Seconds that a check waits for something that must happen."""

TOPIC: Final = "/bacalhau/1/conformance/jobs"
ECHO: Final = "/bacalhau/conformance/echo/1.0.0"
HOLD: Final = "/bacalhau/conformance/hold/1.0.0"

OpenTransport = Callable[[Identity], AbstractAsyncContextManager[Transport]]

_Arrival = TypeVar("_Arrival", bound=Incoming)


# --- what checks are made of --------------------------------------------------------------------


async def expect(transport: Transport, kind: type[_Arrival]) -> _Arrival:
    """The next arrival of this kind; others are passed over. Raises trio.TooSlowError."""
    with trio.fail_after(PATIENCE):
        async for arrival in transport.incoming:
            if isinstance(arrival, kind):
                return arrival
    raise AssertionError(f"incoming ended before a {kind.__name__} came")


@asynccontextmanager
async def open_connected(open_transport: OpenTransport, count: int = 2) -> AsyncIterator[Sequence[Transport]]:
    """Transports in a line: each is connected to the next, and every end has been told."""
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
def refused(error: type[Exception]) -> Iterator[None]:
    """The block must raise this error."""
    try:
        yield
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")


async def broadcast_until_heard(author: Transport, listener: Transport, payload: bytes) -> Broadcast:
    """Repeat a broadcast, as broadcasts may be lost while subscriptions spread, until it is heard."""

    async def repeat() -> None:
        while True:
            await author.broadcast(TOPIC, payload)
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(repeat)
        heard = await expect(listener, Broadcast)
        while heard.payload != payload:
            heard = await expect(listener, Broadcast)
        nursery.cancel_scope.cancel()
    return heard


async def read_all(stream: HalfCloseableStream) -> bytes:
    """What comes until the end of the stream."""
    content = bytearray()
    while chunk := await stream.receive_some():
        content += chunk
    return bytes(content)


def noise(size: int) -> bytes:
    """That many bytes which no compression shortens, always the same."""
    return Random(size).randbytes(size)  # noqa: S311 - no secret


async def echo(peer: PeerID, stream: HalfCloseableStream) -> None:
    """A handler that sends back what it reads."""
    while chunk := await stream.receive_some():
        await stream.send_all(chunk)


async def hold(peer: PeerID, stream: HalfCloseableStream) -> None:
    """A handler that does nothing until it is cancelled."""
    await trio.sleep_forever()


# --- broadcasts -----------------------------------------------------------------------------------


async def check_a_broadcast_names_its_author_not_who_passed_it_on(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport, 3) as (author, _, listener):
        heard = await broadcast_until_heard(author, listener, b"for everybody")
        assert heard == Broadcast(author.peer_id, TOPIC, b"for everybody")


async def check_the_first_broadcast_after_peer_connected_arrives(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (author, listener):
        await author.broadcast(TOPIC, b"first")
        assert (await expect(listener, Broadcast)).payload == b"first"


async def check_only_subscribed_topics_arrive_and_not_ones_own(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (author, listener):
        await author.broadcast(TOPIC + "-other", b"not subscribed")
        await author.broadcast(TOPIC, b"subscribed")
        assert (await expect(listener, Broadcast)).payload == b"subscribed"
        await listener.broadcast(TOPIC, b"answer")
        assert (await expect(author, Broadcast)).payload == b"answer"


async def check_a_subscription_takes_effect_on_standing_connections(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (author, listener):
        topic = TOPIC + "-late"
        await author.subscribe(topic)
        await listener.subscribe(topic)

        async def repeat() -> None:
            while True:
                await author.broadcast(topic, b"late")
                await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(repeat)
            assert await expect(listener, Broadcast) == Broadcast(author.peer_id, topic, b"late")
            nursery.cancel_scope.cancel()


async def check_a_burst_of_broadcasts_arrives(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (author, listener):
        sent = [b"burst %d" % number for number in range(50)]
        for payload in sent:
            await author.broadcast(TOPIC, payload)
        heard = [(await expect(listener, Broadcast)).payload for _ in sent]
        assert sorted(heard) == sorted(sent)


async def check_the_largest_broadcast_arrives_and_a_larger_one_is_refused(
    open_transport: OpenTransport,
) -> None:
    async with open_connected(open_transport) as (author, listener):
        payload = noise(MAX_BROADCAST)
        await author.broadcast(TOPIC, payload)
        assert (await expect(listener, Broadcast)).payload == payload
        with refused(MessageTooLarge):
            await author.broadcast(TOPIC, payload + b"x")


# --- direct frames --------------------------------------------------------------------------------


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
        # Both speak first, at once: only one stream a pair may result, or order is lost.
        nursery.start_soon(talk, a, b.peer_id)
        nursery.start_soon(talk, b, a.peer_id)
        nursery.start_soon(listen, a, b.peer_id)
        nursery.start_soon(listen, b, a.peer_id)


async def check_the_largest_frame_arrives_and_a_larger_one_is_refused(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        payload = noise(MAX_FRAME)
        for frame in (b"", payload, b"after"):
            await a.send(b.peer_id, frame)
        for frame in (b"", payload, b"after"):
            assert (await expect(b, DirectFrame)).payload == frame
        with refused(MessageTooLarge):
            await a.send(b.peer_id, payload + b"x")


async def check_frames_wait_for_a_reader_and_none_is_lost(open_transport: OpenTransport) -> None:
    count, size = 4096, 8192  # 32 MiB: more than any buffer on the way holds
    sent = 0

    async def talk(transport: Transport, to: PeerID) -> None:
        nonlocal sent
        for number in range(count):
            await transport.send(to, number.to_bytes(4, "big") * (size // 4))
            sent += 1

    async with open_connected(open_transport) as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(talk, a, b.peer_id)
        before = -1
        with trio.fail_after(PATIENCE):
            while before < sent:
                before = sent
                await trio.sleep(0.5)
        assert 0 < sent < count
        for number in range(count):
            assert (await expect(b, DirectFrame)).payload[:4] == number.to_bytes(4, "big")


async def check_broadcasts_nobody_reads_are_dropped_and_counted(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (author, listener):
        with trio.fail_after(PATIENCE * 3):
            while not listener.counters.get("broadcasts_dropped"):
                for _ in range(100):
                    await author.broadcast(TOPIC, b"again")
                await trio.sleep(0.05)
        with trio.fail_after(PATIENCE):
            while True:
                assert isinstance(await listener.incoming.receive(), Incoming)
                if not listener.incoming.statistics().current_buffer_used:
                    break
        await author.send(listener.peer_id, b"still there")
        assert (await expect(listener, DirectFrame)).payload == b"still there"


# --- peers ------------------------------------------------------------------------------------------


async def check_what_can_go_at_once_does_and_the_rest_is_refused(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        await a.send(b.peer_id, b"first")
        await expect(b, DirectFrame)
        assert a.send_now(b.peer_id, b"second", b"third")
        assert (await expect(b, DirectFrame)).payload == b"second"
        assert (await expect(b, DirectFrame)).payload == b"third"
        assert not a.send_now(Identity.generate().peer_id, b"nobody")
        with refused(MessageTooLarge):
            a.send_now(b.peer_id, bytes(MAX_FRAME + 1))


async def check_unreachable_peers_are_said_to_be(open_transport: OpenTransport) -> None:
    stranger = Identity.generate().peer_id
    async with open_connected(open_transport) as (a, b):
        with trio.fail_after(PATIENCE):
            with refused(PeerUnreachable):
                await a.send(stranger, b"anybody?")
            with refused(PeerUnreachable):
                await a.open_stream(stranger, ECHO)
            with refused(PeerUnreachable):
                await a.open_stream(b.peer_id, "/nobody/speaks/this")
            for address in ("", "nonsense", f"/p2p/{stranger}", a.addresses[0].partition("/p2p/")[0]):
                with refused(PeerUnreachable):
                    await a.connect(address)
        assert set(a.peers) == {b.peer_id}


async def check_a_peer_does_not_reach_itself(open_transport: OpenTransport) -> None:
    async with open_transport(Identity.generate()) as alone:
        with trio.fail_after(PATIENCE):
            with refused(PeerUnreachable):
                await alone.connect(alone.addresses[0])
            with refused(PeerUnreachable):
                await alone.send(alone.peer_id, b"me?")
            with refused(PeerUnreachable):
                await alone.open_stream(alone.peer_id, ECHO)
        assert list(alone.peers) == []


async def check_another_peer_at_an_address_is_refused(open_transport: OpenTransport) -> None:
    stranger = Identity.generate().peer_id
    async with open_transport(Identity.generate()) as a, open_transport(Identity.generate()) as b:
        with trio.fail_after(PATIENCE), refused(PeerUnreachable):
            await a.connect(b.addresses[0].replace(b.peer_id, stranger))
        assert stranger not in a.peers


async def check_sending_dials_the_addresses_that_were_learned(open_transport: OpenTransport) -> None:
    async with open_transport(Identity.generate()) as a, open_transport(Identity.generate()) as b:
        a.learn_addresses(b.peer_id, b.addresses)
        with trio.fail_after(PATIENCE):
            await a.send(b.peer_id, b"hello")
        assert await expect(b, DirectFrame) == DirectFrame(a.peer_id, b"hello")
        with trio.fail_after(PATIENCE):
            await b.send(a.peer_id, b"hello yourself")
        assert await expect(a, DirectFrame) == DirectFrame(b.peer_id, b"hello yourself")


async def check_both_ends_hear_of_a_disconnection(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        assert b.peer_id in a.peers
        assert a.peer_id in b.peers
        await a.disconnect(b.peer_id)
        assert (await expect(a, PeerDisconnected)).peer == b.peer_id
        assert (await expect(b, PeerDisconnected)).peer == a.peer_id
        assert b.peer_id not in a.peers
        assert a.peer_id not in b.peers


async def check_a_peer_that_leaves_is_missed(open_transport: OpenTransport) -> None:
    async with open_transport(Identity.generate()) as a:
        async with open_transport(Identity.generate()) as b:
            gone = b.peer_id
            await a.connect(b.addresses[0])
            await expect(a, PeerConnected)
        assert (await expect(a, PeerDisconnected)).peer == gone
        with trio.fail_after(PATIENCE), refused(PeerUnreachable):
            await a.send(gone, b"are you there?")


async def check_a_broken_connection_is_made_again(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        await a.send(b.peer_id, b"before")
        await expect(b, DirectFrame)
        await b.disconnect(a.peer_id)
        await expect(a, PeerDisconnected)
        await expect(b, PeerDisconnected)
        a.learn_addresses(b.peer_id, b.addresses)
        with trio.fail_after(PATIENCE):
            await a.send(b.peer_id, b"after")
        assert (await expect(b, PeerConnected)).peer == a.peer_id
        assert (await expect(b, DirectFrame)).payload == b"after"
        with trio.fail_after(PATIENCE):
            await b.send(a.peer_id, b"too")
        assert (await expect(a, DirectFrame)).payload == b"too"
        heard = await broadcast_until_heard(b, a, b"gossip as well")
        assert heard.author == b.peer_id


async def check_a_peer_that_comes_back_elsewhere_is_found(open_transport: OpenTransport) -> None:
    wanderer = Identity.generate()
    async with open_transport(Identity.generate()) as a:
        for visit in (b"first", b"second"):
            async with open_transport(wanderer) as b:
                with trio.fail_after(PATIENCE):
                    a.learn_addresses(b.peer_id, b.addresses)
                    await a.send(b.peer_id, visit)
                assert (await expect(b, DirectFrame)).payload == visit
            await expect(a, PeerDisconnected)


# --- streams ----------------------------------------------------------------------------------------


async def check_a_stream_carries_both_ways_and_ends(open_transport: OpenTransport) -> None:
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
    content = noise(8 * 1024 * 1024)
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
                before = -1
                while before < written:
                    before = written
                    await trio.sleep(0.2)
                assert 0 < written < len(content)
                start_reading.set()
            assert await stream.receive_some() == b""
        await stream.aclose()
        assert digests == [hashlib.sha256(content).hexdigest()]


async def check_closing_without_eof_resets(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        broken = trio.Event()

        async def serve(peer: PeerID, stream: HalfCloseableStream) -> None:
            with refused(trio.BrokenResourceError):
                await read_all(stream)
            broken.set()

        b.handle_streams(HOLD, serve)
        with trio.fail_after(PATIENCE):
            stream = await a.open_stream(b.peer_id, HOLD)
            await stream.send_all(b"half of it")
            await stream.aclose()
            await broken.wait()
            with refused(trio.ClosedResourceError):
                await stream.send_all(b"more")
            with refused(trio.ClosedResourceError):
                await stream.receive_some()


async def check_a_handler_that_throws_harms_its_stream_only(open_transport: OpenTransport) -> None:
    async def throw(peer: PeerID, stream: HalfCloseableStream) -> None:
        await stream.receive_some()
        raise RuntimeError("this handler throws")

    async with open_connected(open_transport) as (a, b):
        b.handle_streams(HOLD, throw)
        b.handle_streams(ECHO, echo)
        with trio.fail_after(PATIENCE):
            good = await a.open_stream(b.peer_id, ECHO)
            bad = await a.open_stream(b.peer_id, HOLD)
            await bad.send_all(b"go")
            with refused(trio.BrokenResourceError):
                await bad.receive_some()
            assert b.counters["handler_faults"] == 1
            await good.send_all(b"still here")
            assert await good.receive_some() == b"still here"
            await good.aclose()


async def check_streams_break_with_their_connection(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        b.handle_streams(HOLD, hold)
        with trio.fail_after(PATIENCE):
            stream = await a.open_stream(b.peer_id, HOLD)
            await b.disconnect(a.peer_id)
            with refused(trio.BrokenResourceError):
                await stream.receive_some()
            with refused(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"anybody?")


async def check_many_streams_run_at_once(open_transport: OpenTransport) -> None:
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


# --- lifetime ----------------------------------------------------------------------------------------


async def check_cancelling_leaves_the_transport_usable(open_transport: OpenTransport) -> None:
    stranger = Identity.generate().peer_id
    async with open_connected(open_transport) as (a, b):
        b.handle_streams(ECHO, echo)
        with trio.fail_after(PATIENCE):
            stream = await a.open_stream(b.peer_id, ECHO)
            with trio.move_on_after(0.05) as waiting:
                await stream.receive_some()
            assert waiting.cancelled_caught
            for operation in (
                lambda: a.send(b.peer_id, b"may go"),
                lambda: a.open_stream(b.peer_id, ECHO),
                lambda: a.connect(b.addresses[0].replace(b.peer_id, stranger)),
                lambda: a.broadcast(TOPIC, b"may go"),
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


async def check_an_error_of_the_block_comes_out_as_it_was_raised(open_transport: OpenTransport) -> None:
    with refused(LookupError):
        async with open_transport(Identity.generate()):
            raise LookupError("the caller's own")


async def check_nothing_runs_after_the_block(open_transport: OpenTransport) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_connected(open_transport) as (a, b):
        b.handle_streams(HOLD, hold)
        stream = await a.open_stream(b.peer_id, HOLD)
        await a.send(b.peer_id, b"last")
        incoming = a.incoming
    assert trio.lowlevel.current_statistics().tasks_living == before
    with trio.fail_after(PATIENCE):
        with refused(trio.EndOfChannel):
            while True:
                await incoming.receive()
        with refused(trio.BrokenResourceError):
            await stream.receive_some()


CHECKS: Final[Sequence[Callable[[OpenTransport], object]]] = tuple(
    value for name, value in sorted(globals().items()) if name.startswith("check_")
)
"""Every check above; each is a coroutine function that takes an `OpenTransport`."""
