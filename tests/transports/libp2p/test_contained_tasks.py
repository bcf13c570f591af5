"""A fault in one task of a py-libp2p service ends that task only."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from libp2p.tools.anyio_service import Service, background_trio_service

from bacalhau_p2p.transports.libp2p.contained_tasks import ContainedTasks


class _Spawner(Service):
    """A service of which one task starts `count` others, one after the other."""

    def __init__(self, count: int, counters: Counter[str] | None) -> None:
        self.count = count
        self.counters = counters
        self.ran = 0
        self.done = trio.Event()

    async def run(self) -> None:
        manager = self.manager if self.counters is None else ContainedTasks(self.manager, self.counters)
        for _ in range(self.count):
            finished = trio.Event()
            manager.run_task(self.work, finished)
            await finished.wait()
        self.done.set()
        await self.manager.wait_finished()

    async def work(self, finished: trio.Event) -> None:
        self.ran += 1
        finished.set()
        raise RuntimeError("a fault in one task")


async def test_a_service_starts_any_number_of_tasks_and_survives_their_faults():
    service = _Spawner(1100, Counter())
    async with background_trio_service(service):
        await service.done.wait()
    assert service.ran == 1100
    assert service.counters == {"task_faults": 1100}


async def test_containing_tasks_is_still_needed():
    service = _Spawner(10, None)
    with pytest.raises(ExceptionGroup):
        async with background_trio_service(service):
            await trio.sleep_forever()
    assert service.ran < 10
