from __future__ import annotations

import trio

from bacalhau_p2p.runtime.transfers import Transfer, counted_in, note_fetched


async def test_what_tasks_and_threads_of_a_block_fetch_is_counted_and_nothing_else():
    first, second = Transfer(), Transfer()

    async def fetch(transfer: Transfer, count: int) -> None:
        with counted_in(transfer):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, note_fetched, count)
                nursery.start_soon(trio.to_thread.run_sync, note_fetched, count)
            note_fetched(1)
        note_fetched(1_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch, first, 10)
        nursery.start_soon(fetch, second, 100)
    assert (first.bytes, second.bytes) == (21, 201)
