"""The configuration of a job's container: no network, no capabilities, no root, limits on everything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bacalhau_p2p.executors.docker.container_monitor import LOG_FILE_SIZE
from bacalhau_p2p.executors.docker.ownership import JobUser
from bacalhau_p2p.executors.docker.writable_folders import can_make_writable, environment_with_home
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.layout import Mount
from bacalhau_p2p.model.engine_params import DockerParams
from bacalhau_p2p.model.image_names import ImageName

if TYPE_CHECKING:
    import docker
    from docker import APIClient

NODE_LABEL = "bacalhau-p2p.node"
JOB_LABEL = "bacalhau-p2p.job"
EXECUTION_LABEL = "bacalhau-p2p.execution"

PIDS_LIMIT = 1024
"""Processes and threads of one job."""

CPU_PERIOD = 250_000
"""Microseconds over which CPU time is shared out. With the engine's default of 100 ms, a job with a tenth
of a core is paused while its container starts: an empty one takes 250 ms instead of 180."""

MINIMUM_CPU_QUOTA = 1000
"""Microseconds in one period; the kernel accepts no less."""

MINIMUM_MEMORY = 6 * 1024**2
"""Bytes; the engine accepts no less."""

LOG_FILES = 2
"""With two, a log shorter than one file has never lost its beginning."""


def container_name(execution_id: str) -> str:
    """The name of an execution's container, with characters that the engine allows."""
    return "bacalhau-" + re.sub(r"[^A-Za-z0-9_.-]", "-", execution_id)


def network_container_name(execution_id: str) -> str:
    """The name of the container that holds the network of an execution."""
    return container_name(execution_id) + "-network"


def owner_labels(request: RunRequest, node_id: str) -> dict[str, str]:
    """Labels by which a node finds the containers of an execution."""
    return {NODE_LABEL: node_id, JOB_LABEL: request.job_id, EXECUTION_LABEL: request.execution_id}


def container_config(
    client: APIClient,
    request: RunRequest,
    params: DockerParams,
    mounts: Iterable[Mount],
    *,
    node_id: str,
    user: JobUser,
    network_mode: str = "none",
    network_environment: Mapping[str, str] | None = None,
    disk_quota: int | None = None,
) -> dict[str, Any]:
    """Arguments for the SDK's `create_container`. The network's environment overrides that of the job.
    `disk_quota`: bytes of its own file system."""
    environment = {**request.environment, **params.environment_variables, **(network_environment or {})}
    return {
        "image": str(ImageName.parse(params.image)),
        "name": container_name(request.execution_id),
        "entrypoint": list(params.entrypoint) or None,
        "command": list(params.parameters) or None,
        "environment": environment_with_home(environment, user, writable=can_make_writable()),
        "working_dir": params.working_directory or None,
        "user": str(user),
        "labels": {**request.labels, **owner_labels(request, node_id)},
        # Setting up a network takes a third of the start, even with the mode `none`.
        "network_disabled": network_mode == "none",
        "host_config": client.create_host_config(
            network_mode=network_mode,
            storage_opt=None if disk_quota is None else {"size": str(disk_quota)},
            mounts=[_bind(mount) for mount in mounts],
            **_limits(request),
        ),
    }


def _bind(mount: Mount) -> docker.types.Mount:
    from docker.types import Mount as DockerMount

    target, source = str(mount.target), str(mount.path.absolute())
    return DockerMount(target, source, type="bind", read_only=mount.read_only)


def _limits(request: RunRequest) -> dict[str, Any]:
    """Resources and privileges. An amount of zero is unlimited."""
    from docker.types import DeviceRequest, LogConfig, Ulimit

    limits: dict[str, Any] = {
        "pids_limit": PIDS_LIMIT,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],
        # PID 1 ignores signals that it does not handle, abort() included; with init the job is not PID 1.
        "init": True,
        "log_config": LogConfig(
            type="local",
            config={"max-size": str(LOG_FILE_SIZE), "max-file": str(LOG_FILES), "compress": "false"},
        ),
    }
    if request.resources.cpu > 0:
        limits["cpu_period"] = CPU_PERIOD
        limits["cpu_quota"] = max(MINIMUM_CPU_QUOTA, round(request.resources.cpu * CPU_PERIOD))
    if request.resources.memory > 0:
        memory = max(MINIMUM_MEMORY, request.resources.memory)
        limits["mem_limit"] = limits["memswap_limit"] = memory  # equal: no swap
    if request.gpus:
        limits["device_requests"] = [DeviceRequest(device_ids=list(request.gpus), capabilities=[["gpu"]])]
    elif request.resources.gpu > 0:
        limits["device_requests"] = [DeviceRequest(count=request.resources.gpu, capabilities=[["gpu"]])]
    return limits
