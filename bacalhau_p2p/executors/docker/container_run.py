"""Runs a container, or follows one that runs already, to its end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.container_monitor import ContainerMonitor
from bacalhau_p2p.executors.docker.container_output import AttachedOutput, LoggedOutput
from bacalhau_p2p.executors.docker.containers import Containers
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.docker.engine_errors import is_permanent
from bacalhau_p2p.executors.results import ResultsFolder

_INIT_FAILED = re.compile(rb"\A\[FATAL tini \(\d+\)\] (exec .+ failed: .+)\n")
_INIT_STATUSES = (126, 127)


async def run_container(
    engine: DockerEngine,
    containers: Containers,
    monitor: ContainerMonitor,
    config: Mapping[str, Any] | None,
) -> int:
    """The exit status of a new container, or without `config` of an existing one.

    Raises ExecutorError. The container is removed in every case.
    """
    client, name = monitor.client, monitor.name
    failure: ExecutorError | None = None
    async with trio.open_nursery() as nursery:
        try:
            if config is None:
                monitor.output = await engine.call(LoggedOutput, client, name)
                nursery.start_soon(monitor.run)
            else:
                await engine.call(client.create_container, **config)
                # Attached before the start: attaching later misses the first lines.
                monitor.output = await engine.call(AttachedOutput, client, name)
                nursery.start_soon(monitor.run)
                containers.check_open()
                await engine.call(client.start, name)
            await monitor.ended.wait()
        except ExecutorError as error:  # to come out of the nursery as it is
            failure = error
        finally:
            with trio.CancelScope(shield=True):
                await containers.remove(name)
                await monitor.stop()
    if failure is not None:
        raise failure
    containers.check_open()
    status = monitor.exit_status()
    _raise_if_never_started(status, monitor.results)
    return status


def _raise_if_never_started(status: int, results: ResultsFolder) -> None:
    """The engine starts the init, so a command that cannot be run is an error of the init."""
    if status not in _INIT_STATUSES or results.stdout.kept:
        return
    if match := _INIT_FAILED.match(results.stderr.head()):
        message = match[1].decode(errors="replace")
        raise ExecutorError(message, permanent=is_permanent(message))
