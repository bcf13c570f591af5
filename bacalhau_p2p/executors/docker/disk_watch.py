"""Stops a container that writes more to the disk than its job has reserved."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.container_monitor import ContainerMonitor
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.output_limits import (
    WATCH_INTERVAL,
    WATCH_SHARE,
    OutputLimits,
    Outputs,
    check_size,
    watch_outputs,
)
from bacalhau_p2p.executors.results import ResultsFolder
from bacalhau_p2p.runtime.tasks import all_or_first_fault

if TYPE_CHECKING:
    from docker import APIClient

LAYER_ENTRIES = 1_000_000
"""Files and folders that a run may write beside its outputs; they are removed, and never read."""
LAYER_DEPTH = 128
"""How deep these may be nested."""
ASK_INTERVAL = 2.0
"""Seconds between two questions to an engine whose folders cannot be read: it may compare all files of an
image."""


def kept_streams(results: ResultsFolder) -> int:
    """Bytes of stdout and stderr in the results folder."""
    return results.stdout.kept + results.stderr.kept


async def run_within(
    limits: OutputLimits, engine: DockerEngine, monitor: ContainerMonitor, run: Callable[[], Awaitable[int]]
) -> int:
    """What `run` returns, the exit status of a container.

    Cancels it as soon as the outputs, with both streams, or what the container has written beside them exceed
    the limits, and raises TooMuchOutput. Raises ExecutorError.
    """
    results, watching, statuses = monitor.results, trio.CancelScope(), list[int]()

    async def run_to_the_end() -> None:
        try:
            statuses.append(await run())
        finally:
            watching.cancel()

    async def watch() -> None:
        outputs, streams = Outputs(results.outputs), partial(kept_streams, results)
        with watching:
            await all_or_first_fault(
                [
                    lambda: watch_outputs(outputs, limits, streams),
                    lambda: _watch_layer(limits, engine, monitor),
                    lambda: _sample_usage(monitor),
                ],
                ExecutorError,
            )

    await all_or_first_fault([run_to_the_end, watch], ExecutorError)
    return statuses[0]


async def _sample_usage(monitor: ContainerMonitor) -> None:
    while True:
        await trio.sleep(WATCH_INTERVAL)
        monitor.usage.sample()


async def _watch_layer(limits: OutputLimits, engine: DockerEngine, monitor: ContainerMonitor) -> None:
    """Watch what a container writes to its own file system: in the folder of the engine that has it, or where
    there is none that this process can read, by asking the engine, which takes longer."""
    await trio.sleep(WATCH_INTERVAL)  # so that a short job does not pay for it
    layer = await engine.call(_layer, monitor.client, monitor.name)
    if layer is not None:
        of_layer = OutputLimits(limits.size, LAYER_ENTRIES, LAYER_DEPTH)
        await watch_outputs(Outputs({}, [layer]), of_layer, lambda: 0)
    while True:
        began = trio.current_time()
        check_size(await engine.abandonable_call(_written, monitor.client, monitor.name), limits)
        await trio.sleep(max(ASK_INTERVAL, (trio.current_time() - began) / WATCH_SHARE))


def _written(client: APIClient, name: str) -> int:
    """Bytes that a container has written to its own file system, as the engine counts them."""
    found = client.containers(all=True, size=True, filters={"name": f"^/{name}$"})
    return sum(container.get("SizeRw") or 0 for container in found)


def _layer(client: APIClient, name: str) -> Path | None:
    """The folder of the engine with what a container has written; None when it is not on this machine."""
    from docker.errors import NotFound

    try:
        driver = client.inspect_container(name).get("GraphDriver") or {}
    except NotFound:
        return None
    folder = (driver.get("Data") or {}).get("UpperDir")
    try:
        return Path(folder) if folder and Path(folder).is_dir() else None
    except OSError:
        return None
