"""Live views: drawn once for all, never more often than once a second, and never left stale."""

from __future__ import annotations

from contextlib import aclosing

import pytest
import trio

from bacalhau_p2p.page import live
from bacalhau_p2p.page.live import LEAST_INTERVAL, MOST_INTERVAL, Changes, LiveViews


class Drawn:
    """A view that shows a number, and counts its drawings."""

    def __init__(self):
        self.number = self.drawings = 0

    async def __call__(self):
        self.drawings += 1
        return f"number\n{self.number}"


async def collect(views, drawn, into, name="v"):
    async with aclosing(views.watch(name, drawn)) as events:
        async for event in events:
            into.append((trio.current_time(), event))


async def test_a_watcher_gets_the_view_at_once_and_again_when_it_has_changed(autojump_clock):
    changes, drawn, seen = Changes(), Drawn(), []
    views = LiveViews(changes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, views, drawn, seen)
        await trio.sleep(0.1)
        assert [event for _, event in seen] == [b"data: number\ndata: 0\n\n"]
        drawn.number = 1
        changes.note()
        await trio.sleep(LEAST_INTERVAL * 2.1)
        assert [event for _, event in seen][1:] == [b"data: number\ndata: 1\n\n"]
        nursery.cancel_scope.cancel()


async def test_many_watchers_and_many_changes_cost_one_drawing_a_second(autojump_clock):
    changes, drawn = Changes(), Drawn()
    views = LiveViews(changes)
    seen = [[] for _ in range(20)]
    async with trio.open_nursery() as nursery:
        for each in seen:
            nursery.start_soon(collect, views, drawn, each)
        for _ in range(1000):
            drawn.number += 1
            changes.note()
            await trio.sleep(0.01)
        assert drawn.drawings <= 1 + 10 / LEAST_INTERVAL
        await trio.sleep(MOST_INTERVAL + 2 * LEAST_INTERVAL)
        assert {each[-1][1] for each in seen} == {b"data: number\ndata: 1000\n\n"}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("delay", [0.0, 0.3, 0.9, 1.1])
async def test_no_change_is_missed_whenever_it_comes(autojump_clock, delay):
    changes, drawn, early, late = Changes(), Drawn(), [], []
    views = LiveViews(changes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, views, drawn, early)
        await trio.sleep(0.5)
        nursery.start_soon(collect, views, drawn, late)  # shares the first drawing
        await trio.sleep(delay)
        drawn.number = 1
        changes.note()
        await trio.sleep(2.5 * LEAST_INTERVAL)
        assert early[-1][1] == late[-1][1] == b"data: number\ndata: 1\n\n"
        nursery.cancel_scope.cancel()


async def test_ages_move_on_although_no_job_changes(autojump_clock):
    changes, drawn, seen = Changes(), Drawn(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, LiveViews(changes), drawn, seen)
        await trio.sleep(0.1)
        drawn.number = 7
        await trio.sleep(MOST_INTERVAL + LEAST_INTERVAL)
        assert seen[-1][1] == b"data: number\ndata: 7\n\n"
        nursery.cancel_scope.cancel()


async def test_watchers_are_counted_and_forgotten_when_they_leave(autojump_clock, monkeypatch):
    monkeypatch.setattr(live, "MAX_STREAMS", 2)
    views, drawn = LiveViews(Changes()), Drawn()

    async def watch(name):
        async with aclosing(views.counted(views.watch(name, drawn))) as events:
            async for _ in events:
                pass

    async with trio.open_nursery() as nursery:
        for name in "ab":
            assert not views.full
            nursery.start_soon(watch, name)
            await trio.sleep(0.1)
        assert views.full
        nursery.cancel_scope.cancel()
    assert not views.full
    assert views._views == {}
