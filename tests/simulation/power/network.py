"""A small network of whole nodes on the simulated clock, whose machines may lose power."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, cast

import trio

from bacalhau_p2p.bprotocol.codec import Envelope
from bacalhau_p2p.bprotocol.messages import Carrier, topic
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.node import Node, open_node
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.interface import Transport
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.simulation.checks.violation import require
from tests.simulation.plans.rng import rng_for
from tests.simulation.power.promises import (
    Answered,
    Ended,
    Promise,
    Stopped,
    promises_of_broadcast,
    promises_of_frame,
)

REQUESTER = "requester"
WORKERS = ("compute-1", "compute-2")
DATABASES = {REQUESTER: "requester.db", **dict.fromkeys(WORKERS, "compute.db")}
"""Of each node, in its folder."""
CANCELLED = "cancelled"
LONG = "long"
LATE = "late"
_COUNTS = {"single": 1, "double": 2, CANCELLED: 1, LONG: 1, LATE: 2}
_SECONDS = {CANCELLED: 60.0, LONG: 20.0}
PATIENCE = 40 * 60.0
"""Seconds of the world within which all must be over."""

Report = Callable[[str, Promise, Envelope | None], None]
"""Called when a node promises something: which node, what, and by which message."""


def spec_of(name: str) -> dict[str, Any]:
    """The job of this name."""
    count = _COUNTS[name]
    return {
        "Name": name,
        "Count": count,
        "Verifier": {"Type": "deterministic" if count > 1 else "noop"},
        "Tasks": [
            {
                "Engine": {"Type": "noop", "Params": {"Stdout": name}},
                "Env": {"SECONDS": str(_SECONDS.get(name, 0.2))},
                "Timeouts": {"ExecutionTimeout": 120, "QueueTimeout": 600, "TotalTimeout": 1800},
            }
        ],
    }


class SmallNetwork:
    """A requester and its compute nodes. Each has a data directory by its name in `folder`."""

    def __init__(self, folder: Path, seed: int, promised: Report = lambda node, promise, by: None) -> None:
        self._folder = folder
        self._seed = seed
        self._promised = promised
        self._network = MemoryNetwork(random=rng_for(seed, "wires"), notice_after=2.0)

    @asynccontextmanager
    async def nodes(self, life: int) -> AsyncIterator[Mapping[str, Node]]:
        """All nodes run for the length of the block."""
        async with AsyncExitStack() as stack:
            yield {
                name: await stack.enter_async_context(self._node(name, rng_for(self._seed, f"{name} {life}")))
                for name in DATABASES
            }

    @asynccontextmanager
    async def _node(self, name: str, rng: Random) -> AsyncIterator[Node]:
        identity = Identity.generate(hashlib.sha256(f"{self._seed}:{name}".encode()).digest())
        settings = Settings(
            data_dir=self._folder / name,
            requester=name == REQUESTER,
            compute=name != REQUESTER,
            engines=("noop",),
            content_timeout=5.0,
            min_free_disk="0",
        )
        async with self._network.open(identity) as transport:
            observed = cast(Transport, _ObservedTransport(transport, name, self._promised))
            executors = [_Sleeper()] if name != REQUESTER else []
            async with open_node(
                settings, executors=executors, transport=observed, identity=identity, rng=rng
            ) as node:
                yield node

    async def submit(self, node: Node, name: str) -> JobID:
        handle = await node.submit(spec_of(name), idempotency_token=name)
        self._promised(REQUESTER, Answered(handle.id, name), None)
        return handle.id

    async def cancel(self, node: Node, job_id: JobID) -> None:
        await node.requester.cancel(job_id, "not wanted any more")
        self._promised(REQUESTER, Stopped(job_id), None)

    async def ending(self, node: Node, job_id: JobID) -> JobState:
        """The state in which the job ended. Raises Violation when it does not end."""
        job = await node.requester.wait(job_id, PATIENCE)
        require(job.state.terminal, "every job ends", f"{job.spec.name} is {job.state}: {job.message}")
        self._promised(REQUESTER, Ended(job_id, job.state), None)
        return job.state

    async def work(self) -> None:
        """Every node runs twice; the first time ends in the middle of a run."""
        async with self.nodes(1) as nodes:
            requester = nodes[REQUESTER]
            await requester.wait_for_compute_nodes(len(WORKERS))
            jobs = {name: await self.submit(requester, name) for name in _COUNTS if name != LATE}
            for name in ("single", "double"):
                await self.ending(requester, jobs[name])
            await self.cancel(requester, jobs[CANCELLED])
        async with self.nodes(2) as nodes:
            jobs[LATE] = await self.submit(nodes[REQUESTER], LATE)
            for name in (LONG, LATE):
                await self.ending(nodes[REQUESTER], jobs[name])
            await self._quiet(nodes)

    async def resume(self, answered: Mapping[str, JobID], when: float) -> None:
        """Start again after a power cut at this second. Every job that was `answered` is known by its name;
        users submit the others again; all complete, and nothing is left. Raises Violation."""
        await trio.sleep(when + 5.0)
        async with self.nodes(3) as nodes:
            requester = nodes[REQUESTER]
            for name in _COUNTS:
                job_id = await self.submit(requester, name)
                require(
                    answered.get(name, job_id) == job_id,
                    "an answered submission survives",
                    f"{name} was lost",
                )
                ending = await self.ending(requester, job_id)
                fine = {JobState.COMPLETED, JobState.STOPPED} if name == CANCELLED else {JobState.COMPLETED}
                require(ending in fine, "every job completes", f"{name} ended {ending}")
            await self._quiet(nodes)

    async def _quiet(self, nodes: Mapping[str, Node]) -> None:
        with trio.move_on_after(PATIENCE):
            while self._left(nodes):  # noqa: ASYNC110 - the clock is a simulated one
                await trio.sleep(1.0)
        left = self._left(nodes)
        require(not left, "nothing is left", ", ".join(left))

    def _left(self, nodes: Mapping[str, Node]) -> list[str]:
        left = []
        for name, node in nodes.items():
            if node.messenger.in_flight:
                left.append(f"{name} has {node.messenger.in_flight} messages in flight")
            if node._compute is not None and node._compute.machine.capacity.reserved != Resources():
                left.append(f"{name} holds a reservation")
            if any((self._folder / name / "executions").glob("*")):
                left.append(f"{name} has folders left")
        return left


class _Sleeper(NoopExecutor):
    """Runs take the time that the job asks for."""

    async def run(self, request: RunRequest) -> RunOutput:
        await trio.sleep(float(request.environment["SECONDS"]))
        return await super().run(request)


class _ObservedTransport:
    """A transport that reports what the node promises over it."""

    def __init__(self, transport: Transport, node: str, promised: Report) -> None:
        self._transport = transport
        self._node = node
        self._promised = promised
        self._mail = topic("main", Carrier.MAIL)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    async def send(self, peer: PeerID, *payloads: bytes) -> None:
        self._observe(peer, payloads)
        await self._transport.send(peer, *payloads)

    def send_now(self, peer: PeerID, *payloads: bytes) -> bool:
        self._observe(peer, payloads)
        return self._transport.send_now(peer, *payloads)

    async def broadcast(self, topic: str, payload: bytes) -> None:
        if topic != self._mail:
            for promise, envelope in promises_of_broadcast(payload):
                self._promised(self._node, promise, envelope)
        await self._transport.broadcast(topic, payload)

    def _observe(self, peer: PeerID, payloads: tuple[bytes, ...]) -> None:
        for payload in payloads:
            for promise, envelope in promises_of_frame(peer, payload):
                self._promised(self._node, promise, envelope)
