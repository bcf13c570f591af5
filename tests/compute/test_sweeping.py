"""The compute service: executors remove what runs left behind (`service`, `leftovers`)."""

from __future__ import annotations

import trio

from bacalhau_p2p.compute import leftovers
from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.testing.network import open_network


class Sweeping(NoopExecutor):
    """Counts its sweeps; the first fails, as when the engine is away."""

    def __init__(self, *, outlives_node: bool) -> None:
        self._outlives_node = outlives_node
        self.sweeps = 0
        self.swept_twice = trio.Event()

    @property
    def outlives_node(self) -> bool:
        return self._outlives_node

    async def sweep(self, alive):
        await trio.lowlevel.checkpoint()
        self.sweeps += 1
        if self.sweeps == 1:
            raise ExecutorError("no engine")
        if self.sweeps == 3:
            self.swept_twice.set()


async def test_an_engine_is_swept_at_intervals_and_again_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "SWEEP_INTERVAL", 0.001)
    engine = Sweeping(outlives_node=True)
    async with open_network(tmp_path, compute_nodes=1, executors={0: [engine]}):
        with trio.fail_after(20):
            await engine.swept_twice.wait()


async def test_an_engine_whose_runs_end_with_the_node_is_swept_once(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "SWEEP_INTERVAL", 0.001)
    engine = Sweeping(outlives_node=False)
    async with open_network(tmp_path, compute_nodes=1, executors={0: [engine]}) as net:
        job = {"Tasks": [{"Engine": {"Type": "noop"}, "Publisher": {"Type": "noop"}}]}
        await (await net.requester.submit(job)).wait_result(30)
    assert engine.sweeps == 2
