"""The cases of scripts/bench. Each prints one line per figure, so that two runs are easy to compare."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import bench_content
import bench_docker
import bench_flood
import bench_functions
import bench_logs
import bench_many_jobs
import bench_page

from bacalhau_p2p import SyncClient
from bacalhau_p2p.node.info_pace import info_interval

COMMAND = str(Path(sys.executable).parent / "bacalhau-p2p")


class Api:
    """One keep-alive connection to a requester: that of the devstack that runs this script, or of a port."""

    def __init__(self, port: str = "") -> None:
        host = "127.0.0.1" if port else os.environ["BACALHAU_P2P_API_HOST"]
        port = port or os.environ["BACALHAU_P2P_API_PORT"]
        self.port = port
        self._connection = http.client.HTTPConnection(host, int(port), timeout=120)

    def request(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        self._connection.request(method, path, None if body is None else json.dumps(body))
        response = self._connection.getresponse()
        answer = json.load(response)
        if response.status != 200:
            raise SystemExit(f"{method} {path}: {answer}")
        return dict(answer)

    def text(self, path: str) -> str:
        self._connection.request("GET", path)
        return self._connection.getresponse().read().decode()

    def run(self, job: dict[str, Any]) -> float:
        """Seconds from the submission of a job to the answer that it has completed."""
        started = time.perf_counter()
        job_id = self.request("PUT", "/api/v1/orchestrator/jobs", {"Job": job})["JobID"]
        state = self.request("GET", f"/api/v1/orchestrator/jobs/{job_id}?wait=60")["Job"]["State"]
        if state["StateType"] != "Completed":
            raise SystemExit(f"job {job_id} is {state}")
        return time.perf_counter() - started


JOB: dict[str, Any] = {"Tasks": [{"Engine": {"Type": "noop"}}]}
JOBS = 200
"""How many jobs noop and noop-burst run, unless told otherwise."""
IN_FLIGHT = (10, 50)
WARM_UP = 20
SETTLING = 60.0
"""Seconds from the start until idle nodes are measured."""
_INFOS = 'messages_total{direction="received",kind="node_info"}'
GOSSIP_COUNTERS = ("broadcasts_received", "broadcasts_verified", "broadcasts_sent")


def noop(jobs: int) -> None:
    """One job after the other: the time that a user waits."""
    for count in (1, 3):
        _one_by_one(f"no-op job, Count {count}", {**JOB, "Count": count}, jobs or JOBS)


def noop_inputs(jobs: int) -> None:
    """The same with an input that only the requester has, and of jobs whose results are compared."""
    count = jobs or JOBS
    with tempfile.TemporaryDirectory() as folder, SyncClient() as client:
        file = Path(folder) / "input"

        def with_input(number: int) -> dict[str, Any]:
            file.write_text(f"input {number} of {os.getpid()}")
            source = {"Type": "ipfs", "Params": {"CID": client.add(file)}}
            return {"Tasks": [{**JOB["Tasks"][0], "InputSources": [{"Target": "/in", "Source": source}]}]}

        _one_by_one("the same input each time", with_input(0), count)
        _one_by_one("a new input each time", [with_input(number) for number in range(WARM_UP + count)], count)
    verifier = {"Type": "deterministic", "Params": {"Confidence": 2}}
    _one_by_one("two results compared", {**JOB, "Count": 2, "Verifier": verifier}, count)


def _one_by_one(title: str, job: dict[str, Any] | Sequence[dict[str, Any]], jobs: int) -> None:
    """`job`: one for all runs, or one for each, those to warm up first."""
    each = iter(job) if isinstance(job, Sequence) else repeat(job)
    api = Api()
    for _ in range(WARM_UP):
        api.run(next(each))
    with broadcasts(title, jobs), processor_time(title, jobs):
        api = Api()  # the first connection may have been idle for too long
        seconds = [api.run(next(each)) for _ in range(jobs)]
    steps = statistics.quantiles(seconds, n=100, method="inclusive")
    say(
        title,
        *(f"p{part} {steps[part - 1] * 1000:6.1f} ms" for part in (50, 90, 99)),
        f"({jobs} jobs, one after the other)",
    )


def noop_burst(jobs: int) -> None:
    """Many users at once: the throughput of the network, with room for all of them on every node."""
    task = {**JOB["Tasks"][0], "Resources": {"CPU": "10m", "Memory": "1Mb"}}
    for in_flight in IN_FLIGHT:
        for count in (1, 3):
            title = f"{in_flight} no-op jobs in flight, Count {count}"
            _burst(title, {"Tasks": [task], "Count": count}, in_flight, (jobs or JOBS) // in_flight)


def _burst(title: str, job: dict[str, Any], in_flight: int, each: int) -> None:
    def work(jobs: int) -> list[float]:
        api = Api()
        return [api.run(job) for _ in range(jobs)]

    jobs = each * in_flight
    with ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(work, [WARM_UP // in_flight + 1] * in_flight))
        with broadcasts(title, jobs), processor_time(title, jobs):
            started = time.perf_counter()
            waits = [seconds for mine in pool.map(work, [each] * in_flight) for seconds in mine]
            took = time.perf_counter() - started
    say(
        title,
        f"{jobs / took:6.1f} jobs/s",
        f"p50 {statistics.median(waits) * 1000:6.1f} ms",
        f"({jobs} jobs)",
    )


def lists(jobs: int) -> None:
    """What a user waits for commands that list jobs, once there are so many."""
    count = jobs or 10_000
    task = {**JOB["Tasks"][0], "Resources": {"CPU": "10m", "Memory": "1Mb"}}
    in_flight = IN_FLIGHT[-1]
    _burst(f"{count} jobs", {"Tasks": [task]}, in_flight, count // in_flight)
    everything = ("list", "-n", str(count))
    for command in (
        ("version",),
        ("list",),
        everything,
        *((*everything, "-o", output) for output in ("json", "csv", "id", "yaml")),
    ):
        seconds = sorted(_elapsed(command) for _ in range(5))
        say(" ".join(command), f"{seconds[2]:5.2f} s", f"({seconds[0]:.2f} to {seconds[-1]:.2f}; 5 times)")


def _elapsed(arguments: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run([COMMAND, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def idle(jobs: int) -> None:
    """What a node costs when nothing is asked of it, and how many node infos it hears of."""
    nodes = _nodes()
    interval = info_interval(len(nodes))  # in which each node repeats its info once
    time.sleep(SETTLING)
    heard, spent = _infos(), [_milliseconds(pid) for pid in nodes]
    time.sleep(interval)
    shares = sorted((_milliseconds(pid) - old) / interval / 10 for pid, old in zip(nodes, spent, strict=True))
    say(
        f"idle, {len(nodes)} nodes",
        f"{statistics.mean(shares):.2f} % of a core a node (at most {shares[-1]:.2f})",
        f"{(_infos() - heard) / interval:.2f} node infos a second at the requester",
    )
    api, heard, started, done = Api(), _infos(), time.monotonic(), 0
    while time.monotonic() - started < interval or done < jobs:
        api.run(JOB)
        done += 1
    took = time.monotonic() - started
    say(f"{done} jobs", f"{(_infos() - heard) / took:.2f} node infos a second at the requester")


def _infos() -> float:
    """Node infos that the requester has received."""
    lines = Api().text("/metrics").splitlines()
    return next((float(line.split()[1]) for line in lines if _INFOS in line), 0.0)


@contextmanager
def processor_time(title: str, jobs: int) -> Iterator[None]:
    """Print the processor time that the block takes on each node. It varies less than wall time on a busy
    machine."""
    nodes = _nodes()
    before = [_milliseconds(pid) for pid in nodes]
    yield
    spent = [(_milliseconds(pid) - old) / jobs for pid, old in zip(nodes, before, strict=True)]
    say(
        title,
        f"requester {spent[0]:5.1f}",
        f"compute nodes {_list(spent[1:])}",
        "ms of processor time per job",
    )


@contextmanager
def broadcasts(title: str, jobs: int) -> Iterator[None]:
    """Print how often each node receives, verifies and sends a broadcast in the block, a job."""
    apis = [Api(url.rpartition(":")[2]) for url in os.environ["BACALHAU_P2P_DEVSTACK"].split()]
    before = [_gossip_counters(api) for api in apis]
    yield
    after = [_gossip_counters(Api(api.port)) for api in apis]
    for name in GOSSIP_COUNTERS:
        counts = [(new[name] - old[name]) / jobs for new, old in zip(after, before, strict=True)]
        say(title, f"requester {counts[0]:5.1f}", f"compute nodes {_list(counts[1:])}", f"{name} per job")


def _gossip_counters(api: Api) -> dict[str, int]:
    counters = api.request("GET", "/api/v1/agent/node")["Counters"]
    return {name: counters.get(name, 0) for name in GOSSIP_COUNTERS}


def _list(figures: Sequence[float]) -> str:
    """All of a few figures; the mean and the extremes of many."""
    if len(figures) <= 8:
        return " ".join(f"{figure:5.1f}" for figure in figures)
    return f"{statistics.fmean(figures):5.2f} ({min(figures):.1f} to {max(figures):.1f})"


def _nodes() -> list[int]:
    """The processes of the devstack, in the order of their start: the requester is the first."""
    parent = os.getppid()
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return sorted(int(pid) for pid in children if int(pid) != os.getpid())


def _url() -> str:
    return f"http://127.0.0.1:{os.environ['BACALHAU_P2P_API_PORT']}"


def _milliseconds(pid: int) -> float:
    """User and kernel time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def say(title: str, *figures: str) -> None:
    print(f"{title:<24}", *figures, sep="  ", flush=True)


CASES = {
    "noop": ("latency of a no-op job through the API, with 3 compute nodes", noop, ["noop"]),
    "noop-inputs": (
        "the same of jobs with an input, and of jobs whose results are compared",
        noop_inputs,
        ["noop"],
    ),
    "noop-burst": ("the same with 10, then 50 jobs in flight: jobs per second", noop_burst, ["noop"]),
    "lists": ("`list` with 10,000 jobs, or so many: how long the command takes", lists, ["noop"]),
    "idle": (
        "processor time of idle nodes, and the node infos that one hears of, without jobs and with",
        idle,
        ["noop"],
    ),
    "flood": (
        "no-op jobs of five nodes while one peer sends 10,000 messages a second of one kind after the other",
        lambda jobs: bench_flood.flood(say),
        None,
    ),
    "logs": (
        "the output of a WebAssembly program: how soon a line is there, and what a slow reader costs",
        lambda jobs: bench_logs.logs(say, _url(), _nodes()),
        ["wasm"],
    ),
    "docker": (
        "a Docker job that says hello, minus the bare SDK's create, start, wait and remove of the same",
        lambda jobs: bench_docker.docker_jobs(say, Api, jobs),
        ["docker"],
    ),
    "functions": (
        "a Python function over so many inputs, beside a loop of docker run",
        lambda jobs: bench_functions.functions(say, _url(), jobs or JOBS),
        ["wasm"],
    ),
    "many-jobs": (
        "no-op jobs on 4 nodes: then memory, databases, `list` and a restart of each node",
        lambda jobs: bench_many_jobs.many_jobs(say, Api, jobs or 20_000),
        None,
    ),
    "page": (
        "the views of the page with so many jobs, and jobs per second while 50 browsers watch",
        lambda jobs: bench_page.page(say, Api, jobs),
        ["noop"],
    ),
    "small-files": (
        "a folder of 10,000 files of 1 KiB: added to one node, fetched with `get` from another",
        lambda jobs: bench_content.small_files(say),
        None,
    ),
    "large-file": (
        "the same with one file of 256 MiB: MB/s",
        lambda jobs: bench_content.large_file(say),
        None,
    ),
    "huge-file": (
        "the same with 1 GiB: memory of every process",
        lambda jobs: bench_content.large_file(say, 1024),
        None,
    ),
}
"""Description; function that gets the number of jobs, 0 for as many as it likes; and the engines of the
devstack that it runs in, or None if it needs no devstack."""


def main() -> int:
    listing = "\n".join(f"  {name:<11} {what}" for name, (what, _, _) in CASES.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"cases:\n{listing}",
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="what to measure (default: all cases)")
    parser.add_argument(
        "--jobs", type=int, default=0, help="number of jobs (default: 200; of many-jobs 20,000)"
    )
    parser.add_argument(
        "--compute-nodes",
        type=int,
        metavar="N",
        help="compute nodes of noop, noop-inputs, noop-burst and idle (default: 3)",
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if unknown := set(chosen.cases) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if chosen.inside:
        for name in chosen.cases:
            CASES[name][1](chosen.jobs)
        return 0
    status = 0
    for name in chosen.cases or CASES:
        again = [sys.executable, __file__, name, "--inside", "--jobs", str(chosen.jobs)]
        if (engines := CASES[name][2]) is not None:
            flags = [part for engine in engines for part in ("--engine", engine)]
            if chosen.compute_nodes is not None:
                flags += ["--compute-nodes", str(chosen.compute_nodes)]
            again = [COMMAND, "devstack", *flags, "--", *again]
        with tempfile.TemporaryDirectory() as cache:  # nothing is compiled yet
            environment = {**os.environ, "XDG_CACHE_HOME": cache}
            status |= subprocess.run(again, check=False, env=environment).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
