"""A neighbour: what waits for it, how it is written, and what is remembered of it."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.libp2p.gossip import neighbour as module
from bacalhau_p2p.transports.libp2p.gossip.neighbour import (
    MAX_ID_LENGTH,
    MAX_UNWANTED,
    UNWANTED_DURATION,
    WRITE_SIZE,
    Neighbour,
)


class Stream:
    """Takes writes at once while `room`, and otherwise when `allow` is called."""

    def __init__(self, *, room: bool = True, broken: bool = False) -> None:
        self.room = room
        self.broken = broken
        self.written: list[bytes] = []
        self._allowed = trio.Event()

    def send_now(self, data: bytes) -> bool:
        if self.broken:
            raise trio.BrokenResourceError
        if self.room:
            self.written.append(data)
        return self.room

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise trio.BrokenResourceError
        if not self.room:
            await self._allowed.wait()
        self.written.append(data)

    def allow(self) -> None:
        self._allowed.set()


class Bench:
    def __init__(self, **stream: bool) -> None:
        self.counters: Counter[str] = Counter()
        self.unflushed: list[Neighbour] = []
        self.held: set[bytes] = set()
        self.neighbour = Neighbour(
            PeerID("peer"), self.counters, lambda _, identity: identity not in self.held, self.unflushed
        )
        self.stream: Any = Stream(**stream)
        self.neighbour.opened(self.stream, SimpleNamespace(is_initiator=True), "/meshsub/1.2.0")


def test_what_is_put_is_written_together_with_one_write():
    bench = Bench()
    for frame in (b"a", b"b", b"c"):
        assert bench.neighbour.put(frame)
    assert bench.unflushed == [bench.neighbour]
    bench.neighbour.flush()
    assert bench.stream.written == [b"abc"]


def test_a_message_that_it_shows_to_have_while_it_waits_is_not_sent():
    bench = Bench()
    bench.neighbour.put(b"a", b"1")
    bench.neighbour.put(b"b", b"2")
    bench.held.add(b"1")
    bench.neighbour.flush()
    assert bench.stream.written == [b"b"]
    assert bench.counters == {"broadcasts_sent": 1}


async def test_what_does_not_fit_is_written_later_in_order_and_in_pieces_of_bounded_size():
    bench = Bench(room=False)
    frames = [bytes([number]) * (WRITE_SIZE // 2) for number in range(6)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.neighbour.run)
        for frame in frames:
            bench.neighbour.put(frame)
            bench.neighbour.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert bench.stream.written == []
        bench.stream.allow()
        await trio.testing.wait_all_tasks_blocked()
        assert b"".join(bench.stream.written) == b"".join(frames)
        assert max(map(len, bench.stream.written)) <= WRITE_SIZE
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("limit", "frame"), [("OUTBOUND_QUEUE", b"x"), ("OUTBOUND_BYTES", b"x")])
def test_what_waits_for_a_slow_neighbour_is_bounded_and_what_is_dropped_is_counted(monkeypatch, limit, frame):
    monkeypatch.setattr(module, limit, 5)
    bench = Bench(room=False)
    assert [bench.neighbour.put(frame) for _ in range(7)] == [True] * 5 + [False] * 2
    assert bench.counters == {"broadcasts_unsent": 2}


async def test_a_neighbour_that_accepts_no_write_in_time_is_given_up(autojump_clock):
    bench = Bench(room=False)
    bench.neighbour.put(b"a")
    bench.neighbour.flush()
    await bench.neighbour.run()
    assert trio.current_time() == module.WRITE_TIMEOUT


async def test_a_broken_stream_is_given_up():
    bench = Bench(broken=True)
    bench.neighbour.put(b"a")
    bench.neighbour.flush()
    await bench.neighbour.run()
    assert bench.stream.written == []


async def test_nothing_that_waited_for_a_lost_stream_is_written_to_the_next():
    bench = Bench(room=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.neighbour.run)
        bench.neighbour.put(b"a")
        bench.neighbour.put(b"b" * WRITE_SIZE)
        bench.neighbour.flush()
        await trio.testing.wait_all_tasks_blocked()
        bench.neighbour.closed()
        bench.stream.allow()
        assert not bench.neighbour.put(b"lost")
        second: Any = Stream()
        bench.neighbour.opened(second, SimpleNamespace(is_initiator=False), "/meshsub/1.1.0")
        bench.neighbour.put(b"c")
        bench.neighbour.flush()
        with trio.fail_after(10):
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()
    assert second.written == [b"c"]


def test_ids_that_it_does_not_want_are_remembered_for_a_while_and_bounded():
    neighbour = Bench().neighbour
    for number in range(2 * MAX_UNWANTED):
        neighbour.note_unwanted(b"%d" % number)
    neighbour.note_unwanted(bytes(MAX_ID_LENGTH + 1))
    assert len(neighbour._unwanted) == MAX_UNWANTED
    for _ in range(UNWANTED_DURATION):
        assert neighbour.unwanted(b"0")
        neighbour.heartbeat()
    for _ in range(UNWANTED_DURATION):
        assert neighbour.unwanted(b"0")
        neighbour.heartbeat()
    assert not neighbour.unwanted(b"0")


def test_broken_promises_are_forgiven():
    neighbour = Bench().neighbour
    neighbour.broken_promises = 8
    for _ in range(3 * module.FORGIVEN_AFTER):
        neighbour.heartbeat()
    assert neighbour.broken_promises == 1
