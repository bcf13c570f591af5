"""Frames for one peer arrive in order, and a peer that cannot be reached delays no other."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bacalhau_p2p.bprotocol import lanes
from bacalhau_p2p.bprotocol.lanes import LANE_IDLE_TIMEOUT, Lanes
from bacalhau_p2p.errors import PeerUnreachable


class SlowTransport:
    """Records what is sent. `send_now` always refuses; `send` waits while the peer is `stuck`."""

    def __init__(self) -> None:
        self.sent = []
        self.stuck = {}
        self.unreachable = set()
        self.takes_at_once = False

    def send_now(self, peer, *payloads):
        if self.takes_at_once:
            self.sent.append((peer, *payloads))
        return self.takes_at_once

    async def send(self, peer, *payloads):
        if peer in self.stuck:
            await self.stuck[peer].wait()
        if peer in self.unreachable:
            raise PeerUnreachable(peer)
        self.sent.append((peer, *payloads))


class Bench:
    def __init__(self) -> None:
        self.transport = SlowTransport()
        self.acks = {}
        self.mailed = []
        self.counters = Counter()
        self.lanes = Lanes(
            self.transport,
            with_acks=self._with_acks,
            unreachable=lambda peer, frames: self.mailed.extend(frames),
            counters=self.counters,
        )

    def _with_acks(self, peer, frames):
        ack = self.acks.pop(peer, None)
        return [*frames] if ack is None else [ack, *frames]


@asynccontextmanager
async def running():
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.lanes.run)
        yield bench
        nursery.cancel_scope.cancel()


async def test_a_frame_goes_at_once_when_the_transport_takes_it():
    async with running() as bench:
        bench.transport.takes_at_once = True
        bench.lanes.put("bob", b"frame")
        assert bench.transport.sent == [("bob", b"frame")]


async def test_gathered_frames_to_one_peer_leave_together_when_they_are_released():
    async with running() as bench:
        bench.transport.takes_at_once = True
        bench.acks["bob"] = b"ack"
        bench.lanes.gather()
        for peer, frame in (("alice", b"1"), ("bob", None), ("alice", b"2")):
            bench.lanes.put(peer, frame)
        assert bench.transport.sent == []
        bench.lanes.release()
        bench.lanes.put("alice", b"3")
        assert bench.transport.sent == [("alice", b"1", b"2"), ("bob", b"ack"), ("alice", b"3")]


async def test_frames_that_wait_are_sent_together_and_in_order():
    async with running() as bench:
        bench.transport.stuck["bob"] = trio.Event()
        bench.lanes.put("bob", b"1")
        await trio.testing.wait_all_tasks_blocked()
        for frame in (b"2", b"3"):
            bench.lanes.put("bob", frame)
        bench.transport.stuck["bob"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert bench.transport.sent == [("bob", b"1"), ("bob", b"2", b"3")]


async def test_a_frame_never_overtakes_one_that_waits():
    async with running() as bench:
        bench.transport.stuck["bob"] = trio.Event()
        bench.lanes.put("bob", b"1")
        await trio.testing.wait_all_tasks_blocked()
        bench.transport.takes_at_once = True
        bench.lanes.put("bob", b"2")
        assert bench.transport.sent == []
        bench.transport.stuck["bob"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert [frame for _, *frames in bench.transport.sent for frame in frames] == [b"1", b"2"]


async def test_a_stuck_peer_delays_no_other():
    async with running() as bench:
        bench.transport.stuck["bob"] = trio.Event()
        bench.lanes.put("bob", b"for bob")
        bench.lanes.put("carol", b"for carol")
        await trio.testing.wait_all_tasks_blocked()
        assert bench.transport.sent == [("carol", b"for carol")]


async def test_acknowledgements_go_along_or_alone():
    async with running() as bench:
        bench.acks["bob"] = b"ack 1"
        bench.lanes.put("bob", b"frame")
        await trio.testing.wait_all_tasks_blocked()
        bench.acks["bob"] = b"ack 2"
        bench.lanes.put("bob", None)
        await trio.testing.wait_all_tasks_blocked()
        bench.lanes.put("bob", None)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.transport.sent == [("bob", b"ack 1", b"frame"), ("bob", b"ack 2")]


async def test_frames_for_an_unreachable_peer_are_handed_back():
    async with running() as bench:
        bench.transport.unreachable.add("bob")
        for frame in (b"1", b"2"):
            bench.lanes.put("bob", frame)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.mailed == [b"1", b"2"]
        assert bench.counters == {"unreachable": 1}
        bench.transport.unreachable.clear()
        bench.lanes.put("bob", b"3")
        await trio.testing.wait_all_tasks_blocked()
        assert bench.transport.sent == [("bob", b"3")]


async def test_the_oldest_frames_of_a_full_lane_are_dropped(monkeypatch):
    monkeypatch.setattr(lanes, "LANE_LENGTH", 3)
    async with running() as bench:
        bench.transport.stuck["bob"] = trio.Event()
        bench.lanes.put("bob", b"0")
        await trio.testing.wait_all_tasks_blocked()
        for number in range(1, 6):
            bench.lanes.put("bob", b"%d" % number)
        bench.transport.stuck["bob"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert bench.transport.sent == [("bob", b"0"), ("bob", b"3", b"4", b"5")]


async def test_an_idle_lane_ends_and_a_new_one_takes_its_place(autojump_clock):
    async with running() as bench:
        tasks = trio.lowlevel.current_statistics().tasks_living
        bench.lanes.put("bob", b"1")
        await trio.sleep(LANE_IDLE_TIMEOUT * 2)
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        bench.lanes.put("bob", b"2")
        await trio.sleep(1)
        assert bench.transport.sent == [("bob", b"1"), ("bob", b"2")]


@pytest.mark.parametrize("ran", [False, True])
async def test_frames_are_dropped_while_the_lanes_do_not_run(ran):
    bench = Bench()
    if ran:
        async with trio.open_nursery() as nursery:
            await nursery.start(bench.lanes.run)
            nursery.cancel_scope.cancel()
    bench.lanes.put("bob", b"frame")
    assert bench.transport.sent == []
