"""The cases of scripts/bench. Each prints one line a figure, so that two runs can be compared by eye."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).parent / "bacalhau-p2p")


class Api:
    """One kept-alive connection to the requester of the devstack that runs this script."""

    def __init__(self) -> None:
        host, port = os.environ["BACALHAU_P2P_API_HOST"], int(os.environ["BACALHAU_P2P_API_PORT"])
        self._connection = http.client.HTTPConnection(host, port, timeout=120)

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        self._connection.request(method, path, None if body is None else json.dumps(body))
        response = self._connection.getresponse()
        answer = json.load(response)
        if response.status != 200:
            raise SystemExit(f"{method} {path}: {answer}")
        return dict(answer)

    def run(self, job: dict[str, Any]) -> float:
        """Seconds from the submission of a job to the news that it has completed."""
        started = time.perf_counter()
        job_id = self.ask("PUT", "/api/v1/orchestrator/jobs", {"Job": job})["JobID"]
        state = self.ask("GET", f"/api/v1/orchestrator/jobs/{job_id}?wait=60")["Job"]["State"]
        if state["StateType"] != "Completed":
            raise SystemExit(f"job {job_id} is {state}")
        return time.perf_counter() - started


def noop(count: int, jobs: int) -> None:
    api = Api()
    job = {"Count": count, "Tasks": [{"Engine": {"Type": "noop"}}]}
    for _ in range(20):
        api.run(job)
    report(f"no-op job, Count {count}", [api.run(job) for _ in range(jobs)])


def report(title: str, seconds: list[float]) -> None:
    steps = statistics.quantiles(seconds, n=100, method="inclusive")
    figures = "  ".join(f"p{part} {steps[part - 1] * 1000:6.1f} ms" for part in (50, 90, 99))
    print(f"{title:<24} {figures}  ({len(seconds)} jobs, one after the other)", flush=True)


CASES = {
    "noop": ("latency of a job that does nothing, through the API, 3 compute nodes", ["noop"]),
}


def main() -> int:
    listing = "\n".join(f"  {name:<8} {what}" for name, (what, _) in CASES.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"cases:\n{listing}",
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="what to measure (default: everything)")
    parser.add_argument("--jobs", type=int, default=200, help="how often (default: %(default)s)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if unknown := set(chosen.cases) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if chosen.inside:
        for count in (1, 3):
            noop(count, chosen.jobs)
        return 0
    status = 0
    for name in chosen.cases or CASES:
        engines = [part for engine in CASES[name][1] for part in ("--engine", engine)]
        again = [sys.executable, __file__, name, "--inside", "--jobs", str(chosen.jobs)]
        status |= subprocess.run([COMMAND, "devstack", *engines, "--", *again], check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
