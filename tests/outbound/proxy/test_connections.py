from __future__ import annotations

from contextlib import ExitStack

import trio
import trio.testing

from bacalhau_p2p.outbound.proxy.connections import (
    GUARANTEED_CONNECTIONS,
    MAX_CONNECTIONS,
    JobConnections,
    SharedConnections,
)


def take(stack: ExitStack, connections: JobConnections, number: int) -> None:
    for _ in range(number):
        stack.enter_context(connections.one_more())


async def has_room(connections: JobConnections) -> bool:
    with trio.move_on_after(0) as scope:
        await connections.room()
    return not scope.cancelled_caught


async def test_a_job_has_so_many_connections():
    connections = JobConnections(SharedConnections(1000))
    with ExitStack() as stack:
        take(stack, connections, MAX_CONNECTIONS)
        assert not await has_room(connections)
    assert await has_room(connections)


async def test_a_job_has_its_own_connections_whatever_others_take():
    shared = SharedConnections(2)
    greedy, modest = JobConnections(shared), JobConnections(shared)
    with ExitStack() as stack:
        take(stack, greedy, GUARANTEED_CONNECTIONS + 2)
        assert not await has_room(greedy)
        take(stack, modest, GUARANTEED_CONNECTIONS)
        assert not await has_room(modest)


async def test_a_job_that_waits_for_a_shared_connection_takes_one_of_its_own_that_ends(autojump_clock):
    shared = SharedConnections(1)
    greedy, modest = JobConnections(shared), JobConnections(shared)
    with ExitStack() as held, ExitStack() as own:
        take(held, greedy, GUARANTEED_CONNECTIONS + 1)
        take(own, modest, GUARANTEED_CONNECTIONS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(modest.room)
            await trio.testing.wait_all_tasks_blocked()
            own.close()
            nursery.cancel_scope.deadline = trio.current_time() + 1
        assert not nursery.cancel_scope.cancelled_caught


async def test_what_ends_is_shared_again_whichever_connection_it_is():
    shared = SharedConnections(2)
    job = JobConnections(shared)
    with ExitStack() as first, ExitStack() as others:
        take(first, job, 1)
        take(others, job, GUARANTEED_CONNECTIONS + 1)
        assert shared.left == 0
        first.close()
        assert shared.left == 1
    assert shared.left == 2
