"""A whole node in one process, with WebAssembly: what runs at the same time, and what is reported of it."""

from __future__ import annotations

import os
from pathlib import Path

import trio
import wasmtime

from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.node import Node
from bacalhau_p2p.testing.network import open_network
from tests.support.processes import children, cpu_of_children

JOBS = 60
CPU = 0.5
AT_A_TIME = 4
BURN = """
(module (func (export "_start") (local $n i64)
  (loop $l
    (local.set $n (i64.add (local.get $n) (i64.const 1)))
    (br_if $l (i64.lt_u (local.get $n) (i64.const 20000000))))))
"""


class Counting(WasmExecutor):
    """Counts how many runs there are at the same time."""

    now = most = 0

    async def run(self, request: RunRequest) -> RunOutput:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await super().run(request)
        finally:
            self.now -= 1


def burning(cid: object, number: int) -> dict[str, object]:
    module = {"Target": "/module.wasm", "Source": {"Type": "ipfs", "Params": {"CID": str(cid)}}}
    task = {
        "Engine": {"Type": "wasm", "Params": {"EntryModule": "/module.wasm"}},
        "InputSources": [module],
        "Resources": {"CPU": str(CPU)},
    }
    return {"Name": f"burn-{number}", "Tasks": [task]}


async def run(node: Node, cid: object, number: int) -> float:
    """The CPU seconds that were reported."""
    handle = await node.submit(burning(cid, number))
    await handle.wait_result(500)
    (usage,) = (e.usage for e in await node.requester.executions(handle.id) if e.usage is not None)
    assert usage.cpu_seconds is not None
    return usage.cpu_seconds


async def test_sixty_jobs_share_a_node_and_their_cpu_time_adds_up(tmp_path: Path) -> None:
    executor = Counting(tmp_path / "cache")
    module = tmp_path / "burn.wasm"
    module.write_bytes(wasmtime.wat2wasm(BURN))
    reported: list[float] = []
    async with open_network(
        tmp_path / "net", compute_nodes=1, executors={0: [executor]}, limits={"cpu": "2"}
    ) as net:
        cid = await net.requester.add(module)
        await run(net.requester, cid, 0)  # which compiles it
        (warm,) = children(os.getpid())
        before = cpu_of_children(warm)

        async def add(number: int) -> None:
            reported.append(await run(net.requester, cid, number))

        async with trio.open_nursery() as nursery:
            for number in range(1, JOBS + 1):
                nursery.start_soon(add, number)
        counted = cpu_of_children(warm) - before
        offered = net.compute[0].info().compute
        assert offered is not None
        assert offered.available_capacity == offered.max_capacity
    assert len(reported) == JOBS
    assert 2 <= executor.most <= AT_A_TIME  # four only if the machine starts them fast enough
    assert abs(sum(reported) - counted) < 0.1 * counted
