"""`scripts/bench flood`: five honest nodes, and one peer that sends 10,000 messages a second of each kind."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from bench_content import served

ROOT = Path(__file__).parents[2]
NETWORK = "flood-bench"
JOB = {"Job": {"Tasks": [{"Engine": {"Type": "noop"}}]}}
KINDS = ("announcements", "bids", "infos", "heartbeats", "malformed", "invented")
RATE = 10_000
QUIET, FLOOD = 6.0, 15.0
"""Seconds without and with the flood."""
FLOODER_NICENESS = 19
"""It stands for a peer on a machine of its own: it must not take the processors of the nodes it floods."""

Say = Callable[..., None]


class Node:
    """One `serve` process, with its data in a folder. It can be started again."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self._folder = folder
        self._flags = ("--network", NETWORK, "--drain", "0", *flags)
        folder.mkdir(parents=True)
        self.start()

    def start(self) -> None:
        """Returns when it listens."""
        self._running = ExitStack()
        node = served(self._folder / "data", *self._flags, log=self._folder / "log")
        self.process = self._running.enter_context(node)
        self.address = self.process.address

    def request(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        with closing(
            http.client.HTTPConnection("127.0.0.1", int(self.process.port), timeout=120)
        ) as connection:
            connection.request(method, path, None if body is None else json.dumps(body))
            return dict(json.load(connection.getresponse()))

    def run_job(self) -> float:
        """Seconds until a no-op job has completed."""
        began = time.perf_counter()
        job = self.request("PUT", "/api/v1/orchestrator/jobs", JOB)["JobID"]
        state = self.request("GET", f"/api/v1/orchestrator/jobs/{job}?wait=60")["Job"]["State"]
        if state["StateType"] != "Completed":
            raise SystemExit(f"job {job} is {state}")
        return time.perf_counter() - began

    def about(self) -> dict[str, Any]:
        return self.request("GET", "/api/v1/agent/node")

    def stop(self) -> None:
        self._running.close()


def flood(say: Say, kinds: tuple[str, ...] = KINDS) -> None:
    """Honest jobs, one after the other, without and with each flood."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        nodes = [started(stack, Path(folder) / "requester", "--no-compute")]
        hub = nodes[0].address
        for number in range(1, 5):
            nodes.append(started(stack, Path(folder) / f"compute-{number}", "--no-requester", "--peer", hub))
        time.sleep(2)
        for _ in range(50):
            nodes[0].run_job()
        report(say, "quiet", *jobs_for(nodes, QUIET), nodes)
        for kind in kinds:
            before = [node.process.resident() for node in nodes]
            with flooder(kind, nodes[0].address, nodes[1].address) as peer:
                figures = jobs_for(nodes, FLOOD)
                named = [node.about() for node in nodes]
            report(say, kind, *figures, nodes, before)
            offences = [about["WorstSenders"].get(peer) for about in named]
            say(
                f"  {kind}",
                f"named by {sum(map(bool, offences))} of {len(nodes)} nodes",
                f"cut off by {sum(peer in about['CutOff'] for about in named)}",
                str(next(filter(None, offences), {})),
            )
            time.sleep(2)
        nodes[1].stop()
        began = time.perf_counter()
        nodes[1].start()
        spent = nodes[1].process.processor_time()
        say("restart", f"{time.perf_counter() - began:.1f} s", f"{spent:.1f} s of processor time")


def started(stack: ExitStack, folder: Path, *flags: str) -> Node:
    node = Node(folder, *flags)
    stack.callback(node.stop)
    return node


@contextmanager
def flooder(kind: str, *addresses: str) -> Iterator[str]:
    """A process that floods for the length of the block; its peer id."""
    command = [sys.executable, "-m", "tests.support.peers.flooding_peer", kind, *addresses]
    command += ["--network", NETWORK, "--rate", str(RATE)]
    process = subprocess.Popen(
        ["nice", "-n", str(FLOODER_NICENESS), *command], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def jobs_for(nodes: list[Node], seconds: float) -> tuple[list[float], float, list[float]]:
    """Times of the jobs; processor time of the busiest node, a second; the most memory of each node."""
    times: list[float] = []
    most = [0.0] * len(nodes)
    before, began = [node.process.processor_time() for node in nodes], time.monotonic()
    while time.monotonic() - began < seconds:
        times.append(nodes[0].run_job())
        most = [max(known, node.process.resident()) for known, node in zip(most, nodes, strict=True)]
    took = time.monotonic() - began
    spent = [node.process.processor_time() - old for node, old in zip(nodes, before, strict=True)]
    return times, max(spent) / took, most


def report(
    say: Say,
    title: str,
    times: list[float],
    share: float,
    most: list[float],
    nodes: list[Node],
    before: list[float] | None = None,
) -> None:
    steps = statistics.quantiles(times, n=100, method="inclusive")
    grown = max(now - old for now, old in zip(most, before or most, strict=True))
    say(
        title,
        *(f"p{part} {steps[part - 1] * 1000:6.1f} ms" for part in (50, 90, 99)),
        f"max {max(times) * 1000:6.1f} ms",
        f"{len(times)} jobs",
        f"busiest node {share * 100:3.0f} % of a core",
        f"memory at most {max(most):.0f} MB, +{grown:.0f} MB",
    )
