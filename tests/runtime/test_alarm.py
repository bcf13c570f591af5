"""An alarm rings at the earliest time that it was given, once."""

from __future__ import annotations

import trio
import trio.lowlevel

from bacalhau_p2p.runtime.alarm import Alarm


async def rings_at(alarm, times):
    while True:
        await alarm.wait()
        times.append(round(trio.current_time(), 3))


async def test_the_earliest_time_counts_and_a_later_one_changes_nothing(autojump_clock):
    alarm, times = Alarm(trio.current_time), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rings_at, alarm, times)
        begun = trio.current_time()
        await trio.sleep(0.1)
        for seconds in (5.1, 2.1, 3.1):
            alarm.no_later_than(begun + seconds)
        await trio.sleep(10.0)
        nursery.cancel_scope.cancel()
    assert times == [round(begun + 2.1, 3)]


async def test_it_rings_at_once_when_the_time_has_passed_even_before_anybody_waits(autojump_clock):
    alarm = Alarm(trio.current_time)
    alarm.no_later_than(trio.current_time() - 1.0)
    with trio.fail_after(0.5):
        await alarm.wait()


async def test_it_can_be_used_again(autojump_clock):
    alarm, times = Alarm(trio.current_time), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rings_at, alarm, times)
        await trio.lowlevel.checkpoint()
        for _ in range(2):
            alarm.no_later_than(trio.current_time() + 1.0)
            await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    assert len(times) == 2


async def test_its_clock_may_show_another_time_than_trios(autojump_clock):
    def clock():
        return trio.current_time() + 1_000_000.0

    alarm, times = Alarm(clock), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rings_at, alarm, times)
        begun = trio.current_time()
        alarm.no_later_than(clock() + 2.0)
        await trio.sleep(5.0)
        nursery.cancel_scope.cancel()
    assert times == [round(begun + 2.0, 3)]
