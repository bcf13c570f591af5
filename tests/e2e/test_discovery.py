"""Real processes find each other: through one node that then ends, and after restarts."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.networks.networks import Node
from tests.support.waiting import eventually

pytestmark = pytest.mark.network

NODES = 10
STARTING = 3
"""Nodes that start at the same time."""


def knows(node: Node, others: list[Node]) -> bool:
    """Whether a node lists all of these as present."""
    items = node.network.get("/api/v1/orchestrator/nodes")["Nodes"]
    present = {known["Info"]["NodeID"] for known in items if known["Connection"] == "CONNECTED"}
    return present >= {other.peer_id for other in others}


def peers(node: Node) -> set[str]:
    return set(node.network.get("/api/v1/agent/node")["ConnectedPeers"])


def test_ten_nodes_that_know_only_the_first_find_each_other_and_work_without_it(tmp_path: Path):
    with ExitStack() as stack:
        first = Node(tmp_path / "0", "--engine", "noop")
        stack.callback(first.stop)

        def start(number: int) -> Node:
            node = Node(tmp_path / f"{number}", "--engine", "noop", "--peer", first.address)
            stack.callback(node.stop)
            return node

        with ThreadPoolExecutor(STARTING) as pool:
            nodes = [first, *pool.map(start, range(1, NODES))]
        eventually(lambda: all(knows(node, nodes) for node in nodes), 60)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        others = nodes[1:]
        eventually(lambda: all(first.peer_id not in peers(node) and len(peers(node)) >= 3 for node in others))
        assert all(knows(node, others) for node in others)
        for requester in (others[0], others[-1]):
            ran = requester.network.cli("job", "run", "--wait", write_job(tmp_path))
            assert ran.returncode == 0, ran.stderr


def write_job(folder: Path) -> Path:
    file = folder / "job.yaml"
    file.write_text("Count: 3\nTasks: [{Name: main, Engine: {Type: noop}}]\n")
    return file
