from __future__ import annotations

import trio

from bacalhau_p2p.page import activity as activity_module
from bacalhau_p2p.page.activity import INTERVAL, Activity
from bacalhau_p2p.testing.network import open_network


async def test_jobs_that_end_and_bytes_that_move_are_counted_for_each_interval(
    tmp_path, autojump_clock, monkeypatch
):
    monkeypatch.setattr(activity_module, "SAMPLES", 5)
    async with open_network(tmp_path, compute_nodes=1) as network, trio.open_nursery() as nursery:
        node = network.requester
        activity = Activity(node)
        nursery.start_soon(activity.run)
        for _ in range(2):
            job = await node.submit({"Tasks": [{"Engine": {"Type": "noop"}}]})
            await job.wait()
        assert activity.ended == {"Completed": 2}
        assert activity.changes.count > 2
        await trio.sleep(INTERVAL * 3)
        jobs = activity.jobs_per_minute()
        assert sum(jobs) > 0
        assert max(activity.bytes_per_second()) > 0
        await trio.sleep(INTERVAL * 3)
        assert len(activity.jobs_per_minute()) == 4
        nursery.cancel_scope.cancel()
