"""Pings tell a dead peer from a live one."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from bacalhau_p2p.transports.libp2p.yamux.frames import ACK, PING, SYN, Frame
from bacalhau_p2p.transports.libp2p.yamux.pings import Pings


class Writer:
    closed = False

    def __init__(self) -> None:
        self.sent = []

    def send_frame(self, *frame):
        self.sent.append(frame)


class Bench:
    """Pings, and the result of one that runs."""

    def __init__(self, nursery) -> None:
        self.writer = Writer()
        self.pings = Pings(self.writer)
        self.alive = []
        self._nursery = nursery

    async def ping(self, timeout):
        async def run():
            self.alive.append(await self.pings.ping(timeout))

        self._nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()

    def answer(self):
        self.pings.received()
        self.pings.handle(Frame(PING, ACK, 0, self.writer.sent[-1][3]))


@pytest.fixture
def bench(nursery):
    return Bench(nursery)


async def test_an_answer_in_time_gives_the_round_trip(mock_clock, bench):
    await bench.ping(3)
    assert bench.writer.sent == [(PING, SYN, 0, 1)]
    mock_clock.jump(0.25)
    bench.answer()
    await trio.testing.wait_all_tasks_blocked()
    assert bench.alive == [True]
    assert bench.pings.round_trip == 0.25


async def test_a_peer_that_sends_anything_else_is_alive(autojump_clock, bench):
    await bench.ping(3)
    bench.pings.received()
    await trio.sleep(4)
    assert bench.alive == [True]


async def test_a_silent_peer_is_dead(autojump_clock, bench):
    start = trio.current_time()
    await bench.ping(3)
    await trio.sleep(4)
    assert bench.alive == [False]
    assert trio.current_time() - start == 4


async def test_a_peer_is_not_dead_because_this_process_was_suspended(mock_clock, bench):
    """The answer arrived meanwhile and is read right after the timeout."""
    await bench.ping(1)
    mock_clock.jump(1.1)
    await trio.testing.wait_all_tasks_blocked()
    assert bench.alive == []
    bench.answer()
    await trio.testing.wait_all_tasks_blocked()
    assert bench.alive == [True]


async def test_a_ping_ends_with_its_connection(mock_clock, bench):
    await bench.ping(1)
    bench.writer.closed = True
    bench.pings.close()
    await trio.testing.wait_all_tasks_blocked()
    assert bench.alive == [False]
    assert not await bench.pings.ping(1)


def test_a_ping_of_the_peer_is_answered():
    writer = Writer()
    Pings(writer).handle(Frame(PING, SYN, 0, 42))
    assert writer.sent == [(PING, ACK, 0, 42)]
