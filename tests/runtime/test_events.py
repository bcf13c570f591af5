from __future__ import annotations

import trio

from bacalhau_p2p.runtime.events import AutoResetEvent, BroadcastEvent


async def test_a_broadcast_wakes_everybody_who_waits_and_nobody_later(nursery, autojump_clock):
    event, woken = BroadcastEvent(), []

    async def wait(name):
        await event.wait()
        woken.append(name)

    event.fire()  # nobody waits
    for name in ("a", "b"):
        nursery.start_soon(wait, name)
    await trio.testing.wait_all_tasks_blocked()
    assert woken == []
    event.fire()
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(woken) == ["a", "b"]
    with trio.move_on_after(1) as scope:
        await event.wait()
    assert scope.cancelled_caught


async def test_an_auto_reset_event_is_remembered_until_it_is_waited_for_once(autojump_clock):
    event = AutoResetEvent()
    event.set()
    event.set()
    await event.wait()
    assert not event.is_set()
    with trio.move_on_after(1) as scope:
        await event.wait()
    assert scope.cancelled_caught
    event.set()
    await event.wait()
