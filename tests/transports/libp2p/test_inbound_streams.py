"""How often a peer may open streams, with a host that only counts: `inbound_streams`, with `test_guards`."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import trio
import trio.testing
from libp2p.peer.id import ID

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.transports import budgets as limits
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.libp2p.inbound_streams import MAX_STREAMS_PER_PEER, InboundStreams

MALLORY, ALICE = (Identity.generate(bytes([number]) * 32).peer_id for number in (1, 2))


class Stream:
    """A stream that a peer has opened."""

    def __init__(self, peer: str) -> None:
        self.muxed_conn = SimpleNamespace(peer_id=ID.from_base58(peer))
        self.was_reset = False

    async def reset(self) -> None:
        self.was_reset = True


class Host:
    """Serves streams until `end`."""

    def __init__(self) -> None:
        self.served: list[Stream] = []
        self.end = trio.Event()

    async def _swarm_stream_handler(self, stream: Stream) -> None:
        self.served.append(stream)
        await self.end.wait()


class Bench:
    def __init__(self) -> None:
        self.host, self.counters, self.cut_off = Host(), Counter(), []
        self.budgets = Budgets(
            trio.current_time,
            is_connected=lambda peer: True,
            cut_off=lambda peer, seconds: self.cut_off.append(peer),
        )
        self.streams = InboundStreams(self.host, self.budgets, self.counters)

    async def open(self, peer: str, count: int) -> int:
        """How many streams were served, of so many one after the other."""
        before = len(self.host.served)
        self.host.end.set()
        for _ in range(count):
            await self.streams.guard(Stream(peer))
        return len(self.host.served) - before


async def test_a_peer_that_opens_streams_too_often_is_refused_named_and_cut_off(autojump_clock, monkeypatch):
    monkeypatch.setattr(limits, "STRANGER_STREAM_BURST", 20)
    bench = Bench()
    assert await bench.open(MALLORY, 24) == 20
    assert (bench.counters["streams_refused"], bench.cut_off) == (4, [])
    assert await bench.open(ALICE, 10) == 10
    await bench.open(MALLORY, 10)
    assert bench.cut_off == [MALLORY]
    assert list(bench.budgets.offences.worst()) == [MALLORY]
    assert bench.budgets.offences.of(MALLORY)["over_budget_streams"] > 4


async def test_a_peer_with_work_may_open_many_streams(autojump_clock):
    bench = Bench()
    bench.budgets.answered(ALICE)
    for _ in range(30):
        assert await bench.open(ALICE, limits.STREAMS_PER_SECOND) == limits.STREAMS_PER_SECOND
        await trio.sleep(1)
    assert bench.budgets.offences.worst() == {}


async def test_streams_that_a_peer_keeps_open_are_limited_and_named():
    bench = Bench()
    async with trio.open_nursery() as nursery:
        opened = [Stream(MALLORY) for _ in range(MAX_STREAMS_PER_PEER + 3)]
        for stream in opened:
            nursery.start_soon(bench.streams.guard, stream)
        await trio.testing.wait_all_tasks_blocked()
        assert sum(stream.was_reset for stream in opened) == 3
        assert bench.budgets.offences.of(MALLORY) == {"streams_refused": 3}
        bench.host.end.set()
