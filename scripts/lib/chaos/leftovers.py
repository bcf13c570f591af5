"""What nodes should not hold any more: containers, folders, mounts, reservations and processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from engine import OwnEngine, containers_of
from nodes import Node, mounts_below, processes_of

IDLE_TIMEOUT = 60.0
"""Seconds for nodes without jobs to release their reservations."""


async def held_by_idle_nodes(
    nodes: Sequence[Node], folder: Path, engine: OwnEngine | None, has_docker: bool
) -> dict[str, Any]:
    """What idle nodes still hold after up to IDLE_TIMEOUT seconds."""
    found: dict[str, Any] = {}
    with trio.move_on_after(IDLE_TIMEOUT):
        while True:
            found = {
                "left-over containers": _containers(nodes, engine) if has_docker else [],
                "left-over folders": _folders(folder),
                "left-over mounts": mounts_below(folder),
                "reservations": await _reservations(nodes[1:]),
            }
            if not any(found.values()):
                break
            await trio.sleep(0.5)
    return found


def _folders(folder: Path) -> list[str]:
    """Folders of executions, and those that are set aside to be removed later."""
    found = [*folder.glob("compute-*/executions/[!.]*"), *folder.glob("compute-*/executions/.removed/*")]
    return [str(path.relative_to(folder)) for path in found]


async def _reservations(nodes: Sequence[Node]) -> list[str]:
    held = []
    for node in nodes:
        info = await node.info()
        compute = info["ComputeNodeInfo"] if info else {}
        if compute.get("AvailableCapacity") != compute.get("MaxCapacity") or compute.get("RunningExecutions"):
            held.append(f"{node.name}: {json.dumps(compute)}")
        elif not info:
            held.append(f"{node.name} does not answer")
    return held


def _containers(nodes: Sequence[Node], engine: OwnEngine | None) -> list[str]:
    return containers_of(engine.host if engine else None, {node.peer_id for node in nodes})


def left_after_the_end(
    nodes: Sequence[Node], folder: Path, engine: OwnEngine | None, has_docker: bool
) -> list[str]:
    """What is left when all nodes have stopped."""
    containers = _containers(nodes, engine) if has_docker else []
    return [*processes_of(folder), *mounts_below(folder), *containers]
