"""The Python client with real node processes: on trio, on asyncio and without async; through restarts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from bacalhau_p2p import Client, EventKind
from tests.support.networks.networks import REPOSITORY, Node, devstack

pytestmark = pytest.mark.network

EXAMPLES = REPOSITORY / "examples"
NOOP = {"Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": "hello\n"}}}]}


def test_the_same_script_works_on_trio_on_asyncio_and_without_async(tmp_path: Path):
    scripts = [("count_words.py", "trio"), ("count_words.py", "asyncio"), ("count_words_sync.py",)]
    with devstack("--compute-nodes", "2", "--engine", "wasm", folder=tmp_path) as (network, _):
        network.wait_for_compute_nodes(2)
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        environment["BACALHAU_P2P_API_PORT"] = str(network.port)
        printed = [
            subprocess.run(
                [sys.executable, EXAMPLES / name, *arguments],
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            ).stdout
            for name, *arguments in scripts
        ]
    assert printed[0] == printed[1] == printed[2]
    words = [int(line.split()[1]) for line in printed[0].splitlines()]
    assert words == [26457, 26457, 22960, 79651]


def test_the_cells_of_the_notebook_work(tmp_path: Path):
    """As Jupyter runs them: one after the other on one event loop, with `await`, in the notebook's folder."""
    runner = """
import ast, asyncio, inspect, json, sys

async def main():
    names = {}
    for cell in json.load(open("notebook.ipynb"))["cells"]:
        if cell["cell_type"] == "code":
            code = compile("".join(cell["source"]), "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if (waited := eval(code, names)) is not None:
                await waited
    print([int(result.stdout.splitlines()[1].split()[1]) for result in names["results"]])
    print(names["job"]._repr_html_(), names["result"]._repr_html_(), names["counts"]._repr_html_())

asyncio.run(main())
"""
    with devstack("--compute-nodes", "2", "--engine", "wasm", folder=tmp_path) as (network, _):
        network.wait_for_compute_nodes(2)
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        environment["BACALHAU_P2P_API_PORT"] = str(network.port)
        printed = subprocess.run(
            [sys.executable, "-c", runner],
            cwd=EXAMPLES,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
    assert printed.startswith("[26457, 22960, 79651]\n")
    assert ">Completed</b>" in printed


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_wait_and_a_stream_of_events_survive_a_restart_of_the_node(tmp_path: Path, backend: str):
    running = [Node(tmp_path / "requester", "--no-compute")]
    port = running[0].network.port
    kinds: list[EventKind] = []

    async def main() -> None:
        async with Client(f"http://127.0.0.1:{port}") as client:
            job = await client.submit(NOOP)
            waiting = anyio.Event()

            async def follow() -> None:
                async for event in job.events():
                    kinds.append(event.kind)
                    waiting.set()

            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                group.start_soon(restart, waiting)
                with anyio.fail_after(120):
                    assert (await job.wait_result()).stdout == b"hello\n"

    async def restart(waiting: anyio.Event) -> None:
        await waiting.wait()
        await anyio.to_thread.run_sync(start_again)

    def start_again() -> None:
        running[0].process.kill()
        running[0].stop()
        running.append(Node(tmp_path / "requester", "--no-compute", "--api-port", str(port)))
        running.append(Node(tmp_path / "compute", "--no-requester", "--peer", running[1].address))

    try:
        anyio.run(main, backend=backend)
    finally:
        for node in reversed(running):
            node.stop()
    assert kinds[0] is EventKind.SUBMITTED
    assert kinds[-1] is EventKind.ENDED
    assert kinds.count(EventKind.SUBMITTED) == 1
    assert EventKind.RESUMED in kinds
