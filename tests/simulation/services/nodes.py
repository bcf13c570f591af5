"""The nodes of a world: real ones, over a network in memory, that are killed and started again."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from random import Random

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.node import Node, open_node
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.simulation.services.story import Story, node_name

REQUESTER = "requester"
COMPUTE_NODES = 4
NAMES = (REQUESTER, *(f"compute-{number}" for number in range(COMPUTE_NODES)))


def random_for(seed: int, purpose: str) -> Random:
    """The same numbers for the same seed and purpose."""
    return Random(f"{seed}:{purpose}")


class Nodes:
    """All nodes of a world, by name."""

    def __init__(self, seed: int, folder: Path, story: Story) -> None:
        """`folder` holds the data directories."""
        self.network = MemoryNetwork(random=random_for(seed, "wires"), notice_after=2.0)
        self.identities = {
            name: Identity.generate(hashlib.sha256(f"{seed}:{name}".encode()).digest()) for name in NAMES
        }
        self.running: dict[str, Node] = {}
        self._seed = seed
        self._folder = folder
        self._story = story
        self._scopes: dict[str, trio.CancelScope] = {}
        self._down_until: dict[str, float] = {}
        self._starts = dict.fromkeys(NAMES, 0)

    @property
    def requester(self) -> Node | None:
        """None while it is down."""
        return self.running.get(REQUESTER)

    async def keep_running(self, name: str) -> None:
        """Start a node again whenever it was killed. Until cancelled."""
        while True:
            await trio.sleep(max(0.0, self._down_until.get(name, 0.0) - trio.current_time()))
            self._starts[name] += 1
            with trio.CancelScope() as self._scopes[name]:
                try:
                    await self._run(name)
                except* sqlite3.ProgrammingError:
                    pass  # it tried to commit after it was killed
            self.running.pop(name, None)

    def kill(self, name: str, down: float) -> None:
        """End the process between two steps: what it has not committed is lost."""
        node = self.running.pop(name, None)
        if node is None:
            return
        self._story.add_fault("kill", name)
        for component in (node._requester, node._compute):
            if component is not None:
                component._store.db.close()
        self._down_until[name] = trio.current_time() + down
        self._scopes[name].cancel()

    def left_over(self) -> list[str]:
        """What idle nodes should not hold."""
        left = [f"{name} is down" for name in NAMES if name not in self.running]
        for name, node in self.running.items():
            if node.messenger.in_flight:
                left.append(f"{name} has {node.messenger.in_flight} messages in flight")
            if node._compute is not None:
                if node._compute.machine.capacity.reserved != Resources():
                    left.append(f"{name} holds a reservation")
                if node._compute.machine.active:
                    left.append(f"{name} has active executions")
                if any((node.settings.data_dir / "executions").iterdir()):
                    left.append(f"{name} has folders left")
        return left

    async def _run(self, name: str) -> None:
        node_name.set(name)
        rng = random_for(self._seed, f"{name}:{self._starts[name]}")
        compute = name != REQUESTER
        settings = Settings(
            data_dir=self._folder / name,
            requester=not compute,
            compute=compute,
            engines=("noop",),
            labels={"name": name},
            content_timeout=5.0,
            min_free_disk="0",
        )
        identity = self.identities[name]
        async with (
            self.network.open(identity) as transport,
            open_node(
                settings,
                executors=[_Engine(rng)] if compute else [],
                transport=transport,
                identity=identity,
                rng=rng,
            ) as node,
        ):
            self.running[name] = node
            self._story.add("up", name)
            await trio.sleep_forever()


class _Engine(NoopExecutor):
    """Takes its time, and fails as engines do."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    async def run(self, request: RunRequest) -> RunOutput:
        await trio.sleep(self._rng.choice([0.01, 0.5, 5.0, 30.0]))
        if self._rng.random() < 0.1:
            raise ExecutorError("the engine had a bad day")
        return await super().run(request)
