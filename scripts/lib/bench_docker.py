"""A Docker job, against the bare SDK with the same limits: in turn, with the machine as busy for both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import docker
from docker.types import LogConfig, Ulimit

PAIRS = 20
WARM_UP = 3
IMAGE, COMMAND = "busybox:latest", ["echo", "hello"]
CPU, MEMORY = 0.5, 100_000_000


def docker_jobs(say: Callable[..., None], connect: Callable[[], Any], pairs: int) -> None:
    """Count 1, and Count 3, minus create, start, wait and remove of one container without a network.

    A connection for each job: while the bare SDK is at work, one would be idle for too long.
    """
    client = docker.APIClient(**docker.utils.kwargs_from_env())
    for count in (1, 3):
        task = {
            "Engine": {"Type": "docker", "Params": {"Image": IMAGE, "Parameters": COMMAND}},
            "Resources": {"CPU": str(CPU), "Memory": str(MEMORY)},
        }
        job = {"Tasks": [task], "Count": count}
        for _ in range(WARM_UP):
            connect().run(job)
            _bare(client)
        both = [(connect().run(job), _bare(client)) for _ in range(pairs or PAIRS)]
        say(
            f"Docker job, Count {count}",
            f"p50 {statistics.median(job for job, _ in both) * 1000:6.1f} ms",
            f"bare SDK {statistics.median(bare for _, bare in both) * 1000:6.1f} ms",
            f"median difference {statistics.median(job - bare for job, bare in both) * 1000:6.1f} ms",
            f"({len(both)} pairs in turn)",
        )


def _bare(client: docker.APIClient) -> float:
    """Seconds for one container, with the limits of a job."""
    host = client.create_host_config(
        network_mode="none",
        pids_limit=1024,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        ulimits=[Ulimit(name="core", soft=0, hard=0)],
        init=True,
        log_config=LogConfig(type="local", config={"max-size": "32m", "max-file": "2", "compress": "false"}),
        cpu_period=250_000,
        cpu_quota=round(CPU * 250_000),
        mem_limit=MEMORY,
        memswap_limit=MEMORY,
    )
    started = time.perf_counter()
    container = client.create_container(
        IMAGE, COMMAND, user="65534:65534", network_disabled=True, host_config=host
    )["Id"]
    client.start(container)
    client.wait(container)
    client.remove_container(container, force=True, v=True)
    return time.perf_counter() - started
