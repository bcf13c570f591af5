"""A network of whole nodes in one process, over the in-memory transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.node import Node, open_node
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.memory.network import MemoryNetwork


@dataclass(frozen=True, slots=True)
class NodeNetwork:
    """A requester, and compute nodes that it knows."""

    memory_network: MemoryNetwork
    requester: Node
    compute: Sequence[Node]


@asynccontextmanager
async def open_network(
    folder: Path,
    *,
    compute_nodes: int = 3,
    engines: Sequence[str] = ("noop",),
    executors: Mapping[int, Sequence[Executor]] | None = None,
    memory_network: MemoryNetwork | None = None,
    **settings: Any,
) -> AsyncIterator[NodeNetwork]:
    """Run a network for the length of the block. On entry the requester knows every compute node.

    `executors` maps the number of a compute node to the executors that it gets in addition. `settings` are
    for all nodes.
    """
    memory_network = memory_network or MemoryNetwork()
    async with AsyncExitStack() as stack:

        async def start(name: str, extra: Sequence[Executor] = (), **flags: Any) -> Node:
            identity = Identity.generate()
            transport = await stack.enter_async_context(memory_network.open(identity))
            chosen = Settings(
                data_dir=folder / name, engines=tuple(engines), labels={"name": name}, **{**settings, **flags}
            )
            opened = open_node(chosen, executors=extra, transport=transport, identity=identity)
            return await stack.enter_async_context(opened)

        requester = await start("requester", compute=False)
        compute = [
            await start(f"compute-{number}", (executors or {}).get(number, ()), requester=False)
            for number in range(compute_nodes)
        ]
        await requester.wait_for_compute_nodes(compute_nodes)
        yield NodeNetwork(memory_network, requester, compute)
