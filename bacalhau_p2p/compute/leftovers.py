"""Removes what an earlier process of this node left behind: folders, pins, and runs of its engines."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import trio

from bacalhau_p2p.components.adapter_calls import SWEEP_TIMEOUT, call_adapter
from bacalhau_p2p.compute.folders import SET_ASIDE, set_aside
from bacalhau_p2p.errors import ExecutionError
from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

SWEEP_INTERVAL = 15.0
"""Seconds between sweeps of an engine whose runs outlive this node, or that could not be swept."""


def set_folders_aside(folder: Path, keep: Collection[str]) -> None:
    """Set aside all folders in `folder` but those to keep, by name. `folder` is made if it is missing.

    A start does not wait for their removal: a job may leave millions of files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for each in list(folder.iterdir()):
        if each.name not in keep and each.name != SET_ASIDE:
            set_aside(each)


async def release_pins(content: Content, active: Collection[ExecutionID]) -> None:
    """Remove the pins of executions that are not active any more. Raises ContentError."""
    owners = {pin_owners.execution(execution_id) for execution_id in active}
    for pin in await content.pins():
        if pin_owners.is_execution(pin.owner) and pin.owner not in owners:
            await content.unpin(pin.cid, pin.owner)


async def sweep(executor: Executor, alive: Callable[[], Collection[ExecutionID]]) -> None:
    """Have the executor remove runs of executions that are not alive.

    Again and again if its runs outlive the node, because the engine may be away when a run ends. Else
    returns once it has succeeded: an engine may start later than its node.
    """
    while True:
        try:
            await call_adapter("sweep", partial(executor.sweep, alive()), timeout=SWEEP_TIMEOUT)
            if not executor.outlives_node:
                return
        except ExecutionError as error:
            log.info("sweep_postponed", engine=executor.engine, reason=str(error))
        await trio.sleep(SWEEP_INTERVAL)
