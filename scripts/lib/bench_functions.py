"""A Python function over many inputs, beside a loop of `docker run` that does the same work with a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))
from bacalhau_p2p import Client, Input, remote

BOOK = Path(__file__).parents[2] / "examples" / "wordcount" / "texts" / "alice_in_wonderland.txt"
IN_FLIGHT = 16
ONE_BY_ONE = 10
DOCKER_RUNS = 20
"""Enough of a loop: each takes as long as the one before."""
SHELL = "tr -cs A-Za-z '\\n' < /book | tr A-Z a-z | sort | uniq -c | sort -rn | head -n 5"

Say = Callable[..., None]


@remote
def most_frequent(call: tuple[int, Path]) -> list[tuple[str, int]]:
    import re

    _, book = call
    return Counter(re.findall("[a-z]+", book.read_text().lower())).most_common(5)


def functions(say: Say, url: str, jobs: int) -> None:
    trio.run(_functions, say, url, jobs)
    _docker_loop(say)


async def _functions(say: Say, url: str, jobs: int) -> None:
    async with Client(url) as client:
        book = Input(await client.add(BOOK))
        started = time.perf_counter()
        calls = [(number, book) for number in range(IN_FLIGHT)]
        await client.map(most_frequent, calls, limit=IN_FLIGHT)
        took = time.perf_counter() - started
        say("first calls", f"{took:6.1f} s", "one node compiles the interpreter, and the others wait")
        seconds = []
        for number in range(ONE_BY_ONE):
            started = time.perf_counter()
            await (await client.submit_function(most_frequent, (number, book))).value()
            seconds.append(time.perf_counter() - started)
        say("one after the other", f"p50 {median(seconds) * 1000:5.0f} ms", f"({ONE_BY_ONE} calls)")
        before, started = _processor_seconds(), time.perf_counter()
        calls = [(number, book) for number in range(jobs)]
        values = await client.map(most_frequent, calls, limit=IN_FLIGHT)
        took = time.perf_counter() - started
        used = (_processor_seconds() - before) / jobs * 1000
        say(
            "a map of a function",
            f"{jobs / took:6.1f} jobs/s",
            f"{used:5.0f} ms of processor time a job, on all nodes together",
            f"({jobs} inputs, {IN_FLIGHT} in flight; {values[0][0]})",
        )


def _docker_loop(say: Say) -> None:
    """Docker has no Python here: busybox counts the same words with a shell."""
    engine = ["docker", "info"]
    if shutil.which("docker") is None or subprocess.run(engine, capture_output=True, check=False).returncode:
        say("docker run, a loop", "no engine here")
        return
    command = ["docker", "run", "--rm", "--network", "none", "-v", f"{BOOK}:/book:ro", "busybox", "sh", "-c"]
    started = time.perf_counter()
    for _ in range(DOCKER_RUNS):
        done = subprocess.run([*command, SHELL], check=True, capture_output=True, text=True)
    took = time.perf_counter() - started
    first = " ".join(done.stdout.split()[:2])
    say("docker run, a loop", f"{DOCKER_RUNS / took:6.1f} runs/s", f"({DOCKER_RUNS} runs; {first})")


def _processor_seconds() -> float:
    """User and kernel time of the nodes so far, with the processes that they started and that have ended."""
    return sum(map(_of_process_and_below, _children(os.getppid()))) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in text.split() if int(each) != os.getpid()]


def _of_process_and_below(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15])) + sum(map(_of_process_and_below, _children(pid)))
