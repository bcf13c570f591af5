"""One process of a simulated node, with its machines and messaging: all that a kill takes away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.draw import lot
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.proposals import decode_proposal
from bacalhau_p2p.components.commit_plan import QueuedEvent
from bacalhau_p2p.compute import events as cv
from bacalhau_p2p.compute.announcement_reader import AnnouncementReader
from bacalhau_p2p.compute.assessment import Assessor, Offer
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.machine import ComputeMachine
from bacalhau_p2p.compute.machine import Environment as ComputeEnvironment
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.node.info_exchange import EXPIRY_INTERVAL
from bacalhau_p2p.node.info_pace import info_interval
from bacalhau_p2p.node.known_nodes import KnownNodes
from bacalhau_p2p.requester import events as rv
from bacalhau_p2p.requester.machine import Environment as RequesterEnvironment
from bacalhau_p2p.requester.machine import RequesterMachine
from tests.simulation.nodes.actions import perform_for_compute, perform_for_requester
from tests.simulation.nodes.component import Component
from tests.simulation.nodes.disk import Disk
from tests.simulation.nodes.engine import Engine
from tests.simulation.nodes.info_publisher import InfoPublisher
from tests.simulation.nodes.messaging import Messaging
from tests.simulation.nodes.network import Network
from tests.simulation.nodes.observer import Observer
from tests.simulation.nodes.process import Process
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import DATA, OUTLIVING, NodePlan
from tests.simulation.plans.rng import rng_for


@dataclass(slots=True)
class Ids:
    """Ids for what a node makes, over all its processes."""

    peer: PeerID
    _count: int = field(default=0)

    def new_execution_id(self) -> ExecutionID:
        self._count += 1
        return ExecutionID(f"e-{self.peer}-{self._count}")

    def new_message_id(self) -> MessageID:
        self._count += 1
        return MessageID(f"{self.peer}.{self._count}".encode().ljust(16, b"."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a process finds when it starts, and leaves when it ends."""

    plan: NodePlan
    disk: Disk
    engine: Engine
    ids: Ids
    timeline: Timeline
    network: Network
    observer: Observer


class RunningNode:
    """From a start of the node to the end of that process."""

    def __init__(self, host: Host, rng: Random) -> None:
        self.process = Process(host.timeline, host.disk, host.plan.skew)
        self._host = host
        self._messaging = Messaging(
            self.process,
            host.network,
            host.observer,
            rng=rng.random,
            new_message_id=host.ids.new_message_id,
            receive=self._receive,
            clean_up=self._clean_up,
        )
        self.receive = self._messaging.receive
        self._known_nodes = KnownNodes()
        self.requester = self._requester(rng) if host.plan.requester else None
        self.compute = self._compute(rng) if host.plan.compute else None
        self.infos = InfoPublisher(
            self.process, self._messaging, self._known_nodes, self._info, _pauses(host.plan)
        )

    def _requester(self, rng: Random) -> Component:
        host = self._host
        environment = RequesterEnvironment(
            peer_id=self.process.peer, addresses=(), open_proposal=decode_proposal, rng=rng
        )

        def perform(action: Any) -> None:
            perform_for_requester(action, self.process, host.engine, component.put)

        component = Component(
            self.process,
            self._messaging,
            host.observer,
            RequesterMachine(environment),
            host.disk.requester_store,
            perform=perform,
        )
        return component

    def _compute(self, rng: Random) -> Component:
        host = self._host
        room = Resources(cpu=host.plan.cpu, memory=2**36, disk=host.plan.disk)
        ids = iter(host.ids.new_execution_id, None)
        machine = ComputeMachine(ComputeEnvironment(execution_ids=ids, rng=rng, capacity=Capacity(room)))
        assessor = Assessor(
            node_id=self.process.peer, offer=lambda: _OFFER, nodes_known=lambda: self._known_nodes.count
        )
        self._reader = AnnouncementReader(assessor, machine.awaited)

        def perform(action: Any) -> None:
            perform_for_compute(action, self.process, host.engine, component.put, host.observer)

        component = Component(
            self.process,
            self._messaging,
            host.observer,
            machine,
            host.disk.compute_store,
            perform=perform,
        )
        return component

    # --- beginning ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Resume what the disk holds, then take part."""
        now = self.process.clock()
        if self.requester is not None:
            self._messaging.resume(self.requester.store, now)
            self._resume_jobs(self.requester)
            self._expire_known_nodes_later()
        if self.compute is not None:
            self._messaging.resume(self.compute.store, now)
            self._resume_executions(self.compute, now)
        self.infos.begin()
        self._messaging.set_alarm()

    def _resume_jobs(self, requester: Component) -> None:
        records = requester.store.records.values()
        executions: dict[str, list[Execution]] = {}
        for record in records:
            if isinstance(record, Execution):
                executions.setdefault(record.job_id, []).append(record)
        for record in records:
            if isinstance(record, Job) and not record.state.terminal:
                told = len(requester.store.history(record.id))
                requester.put(rv.Resumed(record, tuple(executions.get(record.id, ())), told))

    def _resume_executions(self, compute: Component, now: float) -> None:
        resumed: list[ComputeExecution] = [
            each for each in compute.store.records.values() if not each.state.terminal
        ]
        self._host.engine.sweep(resumed)
        for execution in resumed:
            compute.put(cv.Resumed(execution))

    # --- receiving ------------------------------------------------------------------------------

    def _receive(self, arrival: Arrival) -> None:
        if self.requester is not None and type(arrival.message) in say.TO_REQUESTER:
            self.requester.receive(arrival)
        elif self.compute is not None and type(arrival.message) in say.TO_COMPUTE:
            self._receive_for_compute(self.compute, arrival)
        elif isinstance(arrival.message, say.NodeInfoPublished | say.Greeting):
            if self.infos.learn(arrival) and self.requester is not None:
                self.requester.put(rv.NodeInfoReceived(arrival.message.info))
        elif arrival.id is not None:
            self._messaging.acknowledge(arrival)

    def _receive_for_compute(self, compute: Component, arrival: Arrival) -> None:
        assert isinstance(compute.machine, ComputeMachine)
        if isinstance(arrival.message, say.Announcement) and self._is_for_others(compute.machine, arrival):
            return
        if isinstance(arrival.message, say.JobAnnounced | say.JobOutlined | say.SpecDelivered):
            event = self._reader.event_of(arrival.author, arrival.message)
            compute.enqueue(QueuedEvent(event, arrival))
        else:
            for execution_id in compute.machine.forgotten(arrival.message):
                ended = compute.store.records.get(execution_id)
                if ended is not None and ended.state.terminal and ended.requester_id == arrival.author:
                    compute.put(cv.Recalled(ended))
            compute.receive(arrival)

    def _is_for_others(self, machine: ComputeMachine, arrival: Arrival) -> bool:
        """As the inbox of a real node does, pass over what this node has nothing to do with."""
        announcement = arrival.message
        assert isinstance(announcement, say.Announcement)
        if lot(announcement.job_id, self.process.peer) < announcement.chance:
            return False
        return not machine.considers(arrival.author, announcement.job_id)

    def connection_changed(self, peer: PeerID, *, stands: bool) -> None:
        """The connection to a peer stands, or broke."""
        if stands:
            self._messaging.peer_connected(peer)
            self.infos.met(peer)
        else:
            self.infos.left(peer)
        if self.requester is not None:
            self.requester.put(rv.NodeConnected(peer) if stands else rv.NodeDisconnected(peer))

    def _clean_up(self) -> None:
        for component in (self.requester, self.compute):
            if component is not None:
                component.clean_up()

    # --- node infos -----------------------------------------------------------------------------

    def _expire_known_nodes(self) -> None:
        for peer in self._known_nodes.expire(self.process.clock()):
            assert self.requester is not None
            self.requester.put(rv.NodeWentStale(peer))
        self._expire_known_nodes_later()

    def _expire_known_nodes_later(self) -> None:
        self.process.at(self._host.timeline.now + EXPIRY_INTERVAL, self._expire_known_nodes)

    def _info(self) -> NodeInfo:
        compute = None
        if self.compute is not None:
            machine = self.compute.machine
            assert isinstance(machine, ComputeMachine)
            compute = ComputeInfo(
                engines=tuple(_OFFER.engines),
                storage_sources=tuple(_OFFER.sources),
                publishers=tuple(_OFFER.publishers),
                max_capacity=machine.capacity.limit,
                available_capacity=machine.capacity.available,
                running_executions=machine.active,
            )
        return NodeInfo(
            id=self.process.peer,
            requester=self.requester is not None,
            compute=compute,
            interval=info_interval(self._known_nodes.count),
            sent=self.process.clock(),
        )


def _pauses(plan: NodePlan) -> Callable[[], float]:
    """Randomness of its own: a world stays the same when a node says more or less often what it is."""
    return rng_for(0, f"infos of {plan.name}").random


def _no_faults(config: SpecConfig) -> list[Fault]:
    return []


_OFFER = Offer(
    engines={"noop": _no_faults, OUTLIVING: _no_faults},
    sources={DATA: _no_faults},
    publishers={"ipfs": _no_faults},
    outliving=frozenset({OUTLIVING}),
)
