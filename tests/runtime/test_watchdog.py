from __future__ import annotations

import linecache
import logging
import re
import time
from collections import Counter

import trio
import trio.lowlevel

from bacalhau_p2p.runtime.watchdog import EventLoopWatchdog, watching


def compute_for_long(watchdog: EventLoopWatchdog) -> None:
    """Hold the loop until the watchdog's thread has looked, however busy the machine is."""
    start = time.monotonic()
    while not watchdog.looked and time.monotonic() - start < 60:
        pass


async def test_a_call_that_holds_the_loop_is_logged_with_its_place(caplog):
    counters: Counter[str] = Counter()
    with caplog.at_level(logging.WARNING), watching(limit=0.05, counters=counters) as watchdog:
        await trio.lowlevel.checkpoint()
        compute_for_long(watchdog)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
    assert watchdog.stalls == counters["event_loop_stalls"] == 1
    assert watchdog.longest >= 0.05
    assert "event_loop_held" in caplog.text
    place = rf"where='compute_for_long \({re.escape(__file__)}:\d+\) < test_a_call_that_holds_the_loop_"
    assert re.search(place, caplog.text)


async def test_source_is_not_kept_in_memory_for_what_is_logged():
    linecache.clearcache()
    with watching(limit=0.05) as watchdog:
        await trio.lowlevel.checkpoint()
        compute_for_long(watchdog)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
    assert watchdog.stalls == 1
    assert linecache.cache == {}


def test_only_the_time_between_two_waits_counts(caplog):
    now = 0.0
    watchdog = EventLoopWatchdog(limit=0.5, clock=lambda: now)
    watchdog.after_io_wait(0.0)
    now += 0.4
    watchdog.sample()
    watchdog.before_io_wait(1.0)
    now += 100.0  # the loop waits
    watchdog.sample()
    watchdog.after_io_wait(1.0)
    watchdog.before_io_wait(1.0)
    assert (watchdog.stalls, watchdog.longest) == (0, 0.0)
    watchdog.after_io_wait(1.0)
    now += 0.75
    watchdog.before_io_wait(1.0)
    assert (watchdog.stalls, watchdog.longest) == (1, 0.75)
    assert caplog.text.count("event_loop_held") == 1
