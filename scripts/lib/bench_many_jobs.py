"""What many jobs leave behind: memory and databases of each node, and whether it is as quick as before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from bench_content import Served, all_rounds, served

COMPUTE_NODES = 3
IN_FLIGHT = 10
SETTLED = 5_000
"""Jobs after which memory is not expected to grow any more."""
REPORTS = 10
"""Lines in between, one for each tenth of the jobs."""
JOBS = "/api/v1/orchestrator/jobs"
JOB = {"Tasks": [{"Engine": {"Type": "noop"}, "Resources": {"CPU": "10m", "Memory": "1Mb"}}]}


class Api(Protocol):
    """A connection to the API of one node."""

    def request(self, method: str, path: str, body: object = None) -> dict[str, object]: ...

    def run(self, job: dict[str, object]) -> float: ...


Say = Callable[..., None]


def many_jobs(say: Say, connect: Callable[[str], Api], jobs: int) -> None:
    """Run the jobs on a requester and three compute nodes, then start each node again."""
    os.environ["BACALHAU_P2P_POWER_SAFE"] = "false"  # as in a devstack: the folder is removed at the end
    names = ["requester", *(f"compute-{number}" for number in range(COMPUTE_NODES))]
    with all_rounds() as folder:
        with ExitStack() as stack:
            nodes = [stack.enter_context(served(folder / names[0], "--no-compute", "--drain", "0"))]
            for name in names[1:]:
                flags = ("--no-requester", "--drain", "0", "--peer", nodes[0].address)
                nodes.append(stack.enter_context(served(folder / name, *flags)))
            api = connect(nodes[0].port)
            _wait_for_compute_nodes(api)
            settled = _run(say, connect, nodes, jobs)
            ended = [node.resident() for node in nodes]
            api = connect(nodes[0].port)  # the first connection was idle for too long
            listed = _milliseconds(lambda: api.request("GET", f"{JOBS}?limit=10&reverse=true"))
        for name, before, after in zip(names, settled, ended, strict=True):
            grown = f"resident {before:.1f} -> {after:.1f} MB ({after - before:+.1f})"
            say(name, grown, f"databases {_databases(folder / name, jobs)}", _restart(folder / name))
        say("list of 10 jobs", f"{listed:.1f} ms")


def _run(say: Say, connect: Callable[[str], Api], nodes: Sequence[Served], jobs: int) -> list[float]:
    """Run the jobs; the resident memory of each node after the first of them."""
    first = min(SETTLED, jobs // 2)
    step = max(1, (jobs - first) // REPORTS)
    settled: list[float] = []
    done = 0
    while done < jobs:
        many = min(first if not done else step, jobs - done)
        started = time.perf_counter()
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            list(pool.map(lambda share: _some(connect(nodes[0].port), share), _shares(many)))
        done += many
        resident = [node.resident() for node in nodes]
        settled = settled or resident
        speed = many / (time.perf_counter() - started)
        say(f"{done} jobs", f"{speed:.0f} jobs/s", "resident MB", *(f"{each:.1f}" for each in resident))
    return settled


def _some(api: Api, jobs: int) -> None:
    for _ in range(jobs):
        api.run(JOB)


def _shares(jobs: int) -> list[int]:
    return [jobs // IN_FLIGHT + (number < jobs % IN_FLIGHT) for number in range(IN_FLIGHT)]


def _wait_for_compute_nodes(api: Api) -> None:
    while True:
        nodes = api.request("GET", "/api/v1/orchestrator/nodes")["Nodes"]
        assert isinstance(nodes, list)
        if sum("ComputeNodeInfo" in node["Info"] for node in nodes) == COMPUTE_NODES:
            return
        time.sleep(0.1)


def _databases(folder: Path, jobs: int) -> str:
    sizes = {path.name: path.stat().st_size for path in sorted(folder.rglob("*.db"))}
    return ", ".join(
        f"{name} {size / 1e6:.1f} MB ({size / jobs:.0f} B a job)" for name, size in sizes.items()
    )


def _restart(folder: Path) -> str:
    """How long the node takes to start with what it has, beside a new one."""
    seconds = []
    for path in (folder, folder.with_name(f"{folder.name}-new")):
        started = time.perf_counter()
        with served(path, "--drain", "0"):
            seconds.append(time.perf_counter() - started)
    return f"starts in {seconds[0]:.2f} s (a new node: {seconds[1]:.2f} s)"


def _milliseconds(call: Callable[[], object]) -> float:
    """The fastest of five."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000)
    return min(times)
