"""Calls that go on when their caller is cancelled."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.transports.libp2p.detached_calls import DetachedCalls, SharedCalls


class Call:
    """A call that waits for permission, then returns its argument or raises its error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = 0
        self.allowed = trio.Event()
        self.finished = trio.Event()
        self.error = error

    async def __call__(self, value=None):
        self.begun += 1
        await self.allowed.wait()
        self.finished.set()
        if self.error is not None:
            raise self.error
        return value


async def cancelled_caller(calls, *args, **options):
    """Run a call and cancel the caller before it ends."""
    async with trio.open_nursery() as nursery:

        async def run():
            await calls.run(*args, **options)

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_call_gives_its_value(nursery):
    call = Call()
    call.allowed.set()
    assert await DetachedCalls(nursery).run(call, "value") == "value"


async def test_the_callers_learn_that_a_peer_is_unreachable(nursery):
    call = Call(PeerUnreachable("no answer"))
    call.allowed.set()
    with pytest.raises(PeerUnreachable, match="no answer"):
        await DetachedCalls(nursery).run(call)
    with pytest.raises(PeerUnreachable, match="no answer"):
        await SharedCalls(nursery).run("bob", call)


async def test_a_call_goes_on_when_its_caller_is_cancelled_and_its_value_is_discarded(nursery):
    call, discarded = Call(), []

    async def discard(value):
        discarded.append(value)

    await cancelled_caller(DetachedCalls(nursery), call, "value", discard=discard)
    call.allowed.set()
    await trio.testing.wait_all_tasks_blocked()
    assert call.finished.is_set()
    assert discarded == ["value"]


async def test_a_value_that_the_caller_gets_is_not_discarded(nursery):
    call, discarded = Call(), []
    call.allowed.set()

    async def discard(value):
        discarded.append(value)

    await DetachedCalls(nursery).run(call, "value", discard=discard)
    await trio.testing.wait_all_tasks_blocked()
    assert discarded == []


@pytest.mark.parametrize("kind", [DetachedCalls, SharedCalls])
async def test_a_call_that_fails_after_its_caller_was_cancelled_harms_nobody(nursery, kind):
    call = Call(PeerUnreachable("it went away"))
    arguments = (call,) if kind is DetachedCalls else ("bob", call)
    await cancelled_caller(kind(nursery), *arguments)
    call.allowed.set()
    await trio.testing.wait_all_tasks_blocked()
    assert call.finished.is_set()


async def test_callers_for_one_peer_share_a_call(nursery):
    calls, call = SharedCalls(nursery), Call()
    async with trio.open_nursery() as callers:
        for _ in range(3):
            callers.start_soon(calls.run, "bob", call)
        await trio.testing.wait_all_tasks_blocked()
        assert call.begun == 1
        await cancelled_caller(calls, "bob", call)
        call.allowed.set()
    await calls.run("bob", call)
    assert call.begun == 2


async def test_a_caller_that_waits_when_the_transport_closes_gets_peer_unreachable():
    call = Call()

    async def wait(calls):
        with pytest.raises(PeerUnreachable, match="closed"):
            await calls.run(call)

    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        callers.start_soon(wait, DetachedCalls(nursery))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
