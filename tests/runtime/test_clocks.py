"""Clocks that follow the event loop's."""

from __future__ import annotations

import time

import pytest
import trio

from bacalhau_p2p.runtime.clocks import loop_clock, wall_clock


async def test_the_loop_clock_is_trios_also_when_a_test_moves_it(autojump_clock):
    clock = loop_clock()
    before = clock()
    await trio.sleep(100.0)
    assert clock() - before == pytest.approx(100.0)
    assert clock() == pytest.approx(trio.current_time())


async def test_the_wall_clock_begins_with_the_time_of_day_and_then_follows_the_loop(autojump_clock):
    clock = wall_clock()
    assert clock() == pytest.approx(time.time(), abs=60.0)
    before = clock()
    await trio.sleep(7200.0)
    assert clock() - before == pytest.approx(7200.0)
