"""Networks of real processes, and the command line to use them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.support.networks import forked_commands
from tests.support.networks.forked_commands import COMMAND, ForkedCommand
from tests.support.waiting import eventually

REPOSITORY = Path(__file__).parents[3]
LIAR = Path(__file__).with_name("liar_node.py")
FAILING = Path(__file__).with_name("failing_node.py")
FALSE_ROOT = Path(__file__).with_name("false_root_node.py")
NESTING = Path(__file__).with_name("nesting_node.py")


@dataclass(frozen=True)
class Network:
    """The network as its requester shows it."""

    port: int

    def cli(
        self, *arguments: object, cwd: Path | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run `bacalhau-p2p` with these arguments."""
        return forked_commands.run(
            [COMMAND, *map(str, arguments)],
            env={**os.environ, "BACALHAU_P2P_API_HOST": "127.0.0.1", "BACALHAU_P2P_API_PORT": str(self.port)},
            cwd=cwd,
            timeout=timeout,
        )

    def get(self, path: str) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            return json.load(connection.getresponse())
        finally:
            connection.close()

    def job(self, job_id: str, wait: float = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A job and its executions."""
        answer = self.get(f"/api/v1/orchestrator/jobs/{job_id}?wait={wait}&include=executions")
        return answer["Job"], answer["Executions"]["Items"]

    def wait_for_compute_nodes(self, count: int) -> None:
        """Returns once the requester knows so many nodes that run jobs."""

        def known() -> bool:
            nodes = self.get("/api/v1/orchestrator/nodes")["Nodes"]
            return sum("ComputeNodeInfo" in node["Info"] for node in nodes) >= count

        eventually(known, 60)


@contextmanager
def devstack(*flags: str, folder: Path | None = None) -> Iterator[tuple[Network, ForkedCommand]]:
    """A devstack without a command. Its data is below `folder`. Stopped with SIGTERM at the end."""
    environment = {**os.environ, **({"TMPDIR": str(folder)} if folder else {})}
    process = ForkedCommand([COMMAND, "devstack", *flags], env=environment)
    try:
        assert process.stdout is not None
        port = 0
        for line in process.stdout:
            if found := re.search(r"BACALHAU_P2P_API_PORT=(\d+)", line):
                port = int(found[1])
                break
        assert port, (
            f"the devstack ended before it printed the address of its API: {process.communicate()[1]}"
        )
        yield Network(port), process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)


class Node:
    """A node in a process of its own."""

    def __init__(self, folder: Path, *flags: str, program: Sequence[str] = (COMMAND, "serve")) -> None:
        base = [
            *("--data-dir", str(folder)),
            *("--swarm-host", "127.0.0.1", "--swarm-port", "0"),
            *("--api-port", "0"),
        ]
        words = [*program, *base, *flags]
        self.process: ForkedCommand | subprocess.Popen[str] = (
            ForkedCommand(words)
            if program[0] in (COMMAND, sys.executable)
            else subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        assert self.process.stdout is not None
        printed = dict(self.process.stdout.readline().strip().split(maxsplit=1) for _ in range(3))
        self.peer_id = printed["Peer"].removeprefix("ID: ")
        self.address = printed["Swarm:"]
        self.network = Network(int(printed["API:"].rpartition(":")[2]))

    def stop(self) -> str:
        """Stop the node; returns what it wrote to stderr, but for what a busy machine makes it warn of."""
        if self.process.poll() is None:
            self.process.terminate()
        lines = self.process.communicate(timeout=30)[1].splitlines(keepends=True)
        return "".join(line for line in lines if "event='event_loop_held'" not in line)


@contextmanager
def network_of(folder: Path, compute: Sequence[Sequence[str]]) -> Iterator[tuple[Network, list[Node]]]:
    """A requester, and a compute node for each command (default: `serve`)."""
    nodes = [Node(folder / "requester", "--no-compute")]
    try:
        for number, program in enumerate(compute):
            nodes.append(
                Node(
                    folder / f"compute-{number}",
                    "--no-requester",
                    "--peer",
                    nodes[0].address,
                    program=program or (COMMAND, "serve"),
                )
            )
        network = nodes[0].network
        network.wait_for_compute_nodes(len(compute))
        yield network, nodes[1:]
    finally:
        for node in reversed(nodes):
            node.stop()
