"""The case `page` of scripts/bench: how long each view takes, and what browsers that watch cost."""

from __future__ import annotations

import http.client
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

JOB: dict[str, Any] = {
    "Tasks": [{"Engine": {"Type": "noop"}, "Resources": {"CPU": "10m", "Memory": "1Mb"}}],
    "Labels": {"of": "bench"},
}
IN_FLIGHT = 50
WATCHERS = 50
LOOKS = 20
"""How often each view is asked for."""
PAIRS = 3

Say = Callable[..., None]


def page(say: Say, new_api: Callable[[], Any], jobs: int) -> None:
    """First so many jobs, then the views, then bursts of jobs with and without browsers in turn."""
    rate, last = _burst(new_api, jobs)
    say("page", f"{jobs} jobs stored", f"{rate:6.1f} jobs/s")
    node = new_api().request("GET", "/api/v1/orchestrator/nodes")["Nodes"][0]["Info"]["NodeID"]
    views = ["/", "/jobs", "/jobs?state=Failed", "/jobs?text=nowhere", "/jobs?label=of", f"/jobs/{last}"]
    for path in [*views, "/nodes", f"/nodes/{node}", "/content", "/submit", "/settings"]:
        seconds = sorted(_time_of(path) for _ in range(LOOKS))
        shown = path.replace(last, "ID").replace(node, "ID")
        say(
            "page",
            f"{shown:<20}",
            f"p50 {seconds[LOOKS // 2] * 1000:6.1f} ms",
            f"max {seconds[-1] * 1000:6.1f} ms",
        )
    quiet, watched = [], []
    for _ in range(PAIRS):
        quiet.append(_burst(new_api, jobs=1000)[0])
        with _watchers():
            watched.append(_burst(new_api, jobs=1000)[0])
    for what, rates in (("nobody watches", quiet), (f"{WATCHERS} browsers watch", watched)):
        say("page", f"{what:<20}", *(f"{rate:6.1f} jobs/s" for rate in rates))
    lost = 1 - statistics.median(watched) / statistics.median(quiet)
    say("page", f"{WATCHERS} browsers cost {100 * lost:4.1f} % of the jobs/s")


def _burst(new_api: Callable[[], Any], jobs: int) -> tuple[float, str]:
    """Jobs a second with IN_FLIGHT of them at a time, and the id of one."""

    def work(number: int) -> str:
        api, job_id = new_api(), ""
        for _ in range(max(1, jobs // IN_FLIGHT)):
            job_id = api.request("PUT", "/api/v1/orchestrator/jobs", {"Job": JOB})["JobID"]
            api.request("GET", f"/api/v1/orchestrator/jobs/{job_id}?wait=120")
        return job_id

    started = time.perf_counter()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        *_, last = pool.map(work, range(IN_FLIGHT))
    return jobs / (time.perf_counter() - started), last


def _connection() -> http.client.HTTPConnection:
    host, port = os.environ["BACALHAU_P2P_API_HOST"], int(os.environ["BACALHAU_P2P_API_PORT"])
    return http.client.HTTPConnection(host, port, timeout=60)


def _time_of(path: str) -> float:
    connection = _connection()
    connection.connect()
    started = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    took = time.perf_counter() - started
    connection.close()
    if response.status != 200:
        raise SystemExit(f"GET {path}: {response.status}")
    return took


@contextmanager
def _watchers() -> Iterator[None]:
    """Browsers that watch, half of them the overview and half the list of jobs."""
    ended = Event()

    def watch(path: str) -> None:
        connection = _connection()
        connection.request("GET", path)
        response = connection.getresponse()
        while not ended.is_set() and response.readline():
            pass
        connection.close()

    threads = [Thread(target=watch, args=(("/live/", "/live/jobs")[n % 2],)) for n in range(WATCHERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
