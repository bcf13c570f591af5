"""The output of a WebAssembly program: how soon a line is there, and what a slow reader costs the nodes."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.programs.talking_modules import flood, talker

LINES = 100
PAUSE = 0.1
FLOOD = 200 * 1024 * 1024
SLOW_FOR = 20
"""Seconds for which the slow reader takes 1 KB a second."""

Say = Callable[..., None]


def logs(say: Say, url: str, nodes: list[int]) -> None:
    """`nodes` are the processes of the network, the requester first."""
    with httpx.Client(base_url=url, timeout=60) as http:
        delays = _delays(http)
        p99 = delays[-1 - len(delays) // 100]
        say("a line of a program", f"p50 {median(delays):4.0f} ms", f"p99 {p99:4.0f} ms", f"({len(delays)})")
        _slow_reader(say, http, url, nodes)


def _submit(http: httpx.Client, job: dict[str, Any]) -> str:
    return str(http.put("/api/v1/orchestrator/jobs", json={"Job": job}).raise_for_status().json()["JobID"])


def _delays(http: httpx.Client) -> list[float]:
    """Milliseconds from the write of each line, by the program's own clock, to its arrival here."""
    job_id = _submit(http, talker(lines=LINES, pause=PAUSE))
    delays = []
    with http.stream("GET", f"/api/v1/orchestrator/jobs/{job_id}/logs", params={"follow": True}) as response:
        for line in response.iter_lines():
            now = time.time()
            if line:
                delays += [(now - int(stamp) / 1e9) * 1000 for stamp in json.loads(line)["Text"].split()]
    return sorted(delays)


def _slow_reader(say: Say, http: httpx.Client, url: str, nodes: list[int]) -> None:
    """Follow 200 MB of output at 1 KB a second, and show the memory of each node before and meanwhile."""
    before = [_memory(pid) for pid in nodes]
    job_id = _submit(http, flood(FLOOD))
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as reader:
        path = f"/api/v1/orchestrator/jobs/{job_id}/logs?follow=true"
        reader.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        most = before
        for _ in range(SLOW_FOR):
            reader.recv(1024)
            time.sleep(1)
            most = [max(known, _memory(pid)) for known, pid in zip(most, nodes, strict=True)]
        state = http.get(f"/api/v1/orchestrator/jobs/{job_id}").json()["Job"]["State"]["StateType"]
    grown = " ".join(f"{(after - first) / 1e6:+5.1f}" for after, first in zip(most, before, strict=True))
    say("200 MB, a slow reader", f"memory of each node, MB: {grown}", f"the job is {state} meanwhile")


def _memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
