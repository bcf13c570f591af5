"""The conformance suite for transports fails for transports that break a promise."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.testing.transports import CHECKS
from bacalhau_p2p.transports.interface import Broadcast, DirectFrame, PeerDisconnected
from bacalhau_p2p.transports.memory.network import MemoryNetwork

BY_NAME = {check.__name__.removeprefix("check_"): check for check in CHECKS}


class Wrapper:
    """A transport that passes everything on to another one."""

    def __init__(self, transport) -> None:
        self._transport = transport

    def __getattr__(self, name):
        return getattr(self._transport, name)


class FilteredIncoming:
    """Arrivals that went through a function, which returns None for those that are lost."""

    def __init__(self, channel, change) -> None:
        self._channel = channel
        self._change = change

    def __len__(self):
        return len(self._channel)

    async def receive(self):
        while True:
            if (arrival := self._change(await self._channel.receive())) is not None:
                return arrival

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


class ChangesArrivals(Wrapper):
    def __init__(self, transport) -> None:
        super().__init__(transport)
        self.incoming = FilteredIncoming(transport.incoming, self.change)

    def change(self, arrival):
        return arrival


class NamesItselfAsAuthor(ChangesArrivals):
    def change(self, arrival):
        return Broadcast(self.peer_id, arrival.topic, arrival.payload) if is_broadcast(arrival) else arrival


class LosesBroadcasts(ChangesArrivals):
    def change(self, arrival):
        return None if is_broadcast(arrival) else arrival


class LosesAFrame(ChangesArrivals):
    frames = 0

    def change(self, arrival):
        self.frames += isinstance(arrival, DirectFrame)
        return None if self.frames == 5 else arrival


class ReportsNoDisconnection(ChangesArrivals):
    def change(self, arrival):
        return None if isinstance(arrival, PeerDisconnected) else arrival


class AcceptsAnySize(Wrapper):
    async def broadcast(self, topic, payload):
        await self._transport.broadcast(topic, payload[:100_000])

    async def send(self, peer, *payloads):
        await self._transport.send(peer, *(payload[: 1024 * 1024] for payload in payloads))


class SendsLater(Wrapper):
    def send_now(self, peer, *payloads):
        return True


class ReachesAnybody(Wrapper):
    async def send(self, peer, *payloads):
        try:
            await self._transport.send(peer, *payloads)
        except PeerUnreachable:
            return


class ReachesItself(Wrapper):
    async def connect(self, address):
        if address in self.addresses:
            return self.peer_id
        return await self._transport.connect(address)


class EndsInsteadOfResetting(Wrapper):
    async def open_stream(self, peer, protocol):
        return EndingStream(await self._transport.open_stream(peer, protocol))


class EndingStream(HalfCloseableStream):
    def __init__(self, stream) -> None:
        self._stream = stream

    async def send_all(self, data):
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self):
        await self._stream.send_eof()

    async def receive_some(self, max_bytes=None):
        try:
            return await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            return b""

    async def aclose(self):
        await self._stream.aclose()


class HidesFaults(Wrapper):
    @property
    def counters(self):
        return {}


def is_broadcast(arrival) -> bool:
    return isinstance(arrival, Broadcast)


def opener(wrapper):
    @asynccontextmanager
    async def open_transport(network, identity):
        async with network.open(identity) as transport:
            yield wrapper(transport)

    return open_transport


@asynccontextmanager
async def leaves_a_task(network, identity):
    trio.lowlevel.spawn_system_task(trio.sleep, 1000)
    async with network.open(identity) as transport:
        yield transport


@asynccontextmanager
async def wraps_errors(network, identity):
    async with network.open(identity) as transport, trio.open_nursery():
        yield transport


@pytest.mark.parametrize(
    ("open_transport", "broken"),
    [
        (opener(NamesItselfAsAuthor), "a_broadcast_names_its_author_not_its_forwarder"),
        (opener(LosesBroadcasts), "the_first_broadcast_after_peer_connected_arrives"),
        (opener(LosesAFrame), "frames_of_both_directions_arrive_in_order"),
        (opener(LosesAFrame), "frames_wait_for_a_reader_and_none_is_lost"),
        (opener(ReportsNoDisconnection), "both_sides_learn_of_a_disconnection"),
        (opener(ReportsNoDisconnection), "a_peer_that_closes_is_disconnected"),
        (opener(AcceptsAnySize), "the_largest_broadcast_arrives_and_a_larger_one_is_rejected"),
        (opener(AcceptsAnySize), "the_largest_frame_arrives_and_a_larger_one_is_rejected"),
        (opener(SendsLater), "send_now_sends_at_once_or_not_at_all"),
        (opener(ReachesAnybody), "unreachable_peers_raise_peer_unreachable"),
        (opener(ReachesItself), "a_peer_does_not_reach_itself"),
        (opener(EndsInsteadOfResetting), "streams_break_with_their_connection"),
        (opener(HidesFaults), "a_handler_that_raises_harms_only_its_stream"),
        (leaves_a_task, "no_task_is_left_after_the_block"),
        (wraps_errors, "an_error_in_the_block_comes_out_as_it_was_raised"),
    ],
)
async def test_a_broken_promise_fails_its_check(autojump_clock, open_transport, broken):
    network = MemoryNetwork(full_mesh=False)
    with pytest.raises((AssertionError, trio.TooSlowError, ExceptionGroup)) as failure:
        await BY_NAME[broken](lambda identity: open_transport(network, identity))
    if isinstance(failure.value, ExceptionGroup) and open_transport is not wraps_errors:
        assert failure.value.split((AssertionError, trio.TooSlowError))[1] is None
