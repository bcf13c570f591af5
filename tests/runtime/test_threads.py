from __future__ import annotations

import threading

import pytest
import trio

from bacalhau_p2p.runtime.threads import Threads


async def test_no_more_calls_run_at_once_than_allowed():
    threads, running, most, lock = Threads(2), 0, 0, threading.Lock()
    both = threading.Barrier(2, timeout=10)

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()
        with lock:
            running -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(threads.run, work)
    assert most == 2


async def test_what_a_call_returns_or_raises_comes_out():
    threads = Threads(1)
    assert await threads.run(int, "7") == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await threads.run(int, "x")


async def test_an_abandonable_call_does_not_hold_up_a_cancellation_and_keeps_its_thread():
    threads, release = Threads(1), threading.Event()
    try:
        with trio.move_on_after(0.01) as abandoned:
            await threads.run_abandonable(release.wait)
        assert abandoned.cancelled_caught
        with trio.move_on_after(0.01) as waiting:
            await threads.run(release.set)
        assert waiting.cancelled_caught
        assert not release.is_set()
    finally:
        release.set()
