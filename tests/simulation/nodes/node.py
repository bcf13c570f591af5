"""A simulated node: what outlives its process, and one life after the other of the process itself."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import Delivery, OutboxMessage, Recognition
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import Carrier, Message
from bacalhau_p2p.bprotocol.proposals import decode_proposal
from bacalhau_p2p.components.commit_plan import QueuedEvent
from bacalhau_p2p.compute import events as cv
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
from bacalhau_p2p.node.known_nodes import MIN_PUBLISH_INTERVAL, PUBLISH_INTERVAL, KnownNodes
from bacalhau_p2p.requester import events as rv
from bacalhau_p2p.requester.machine import Environment as RequesterEnvironment
from bacalhau_p2p.requester.machine import RequesterMachine
from tests.simulation.nodes.actions import perform_for_compute, perform_for_requester
from tests.simulation.nodes.component import Component
from tests.simulation.nodes.engine import Engine
from tests.simulation.nodes.store import Durable
from tests.simulation.plans.plan import (
    DATA,
    OUTLIVING,
    CrashPoint,
    FullDisk,
    NodePlan,
    Point,
    SlowDisk,
    StepFault,
)
from tests.simulation.plans.rng import rng_for

if TYPE_CHECKING:
    from tests.simulation.worlds.world import World

TIDY_AFTER = 1.0
"""Seconds after which acknowledged messages leave the outbox, if no commit takes them along."""


class Died(BaseException):
    """The process ends here and now; nothing of it runs on."""

    def __init__(self, node: SimulatedNode, down: float, *, power: bool) -> None:
        super().__init__(node.peer)
        self.node = node
        self.down = down
        self.power = power


class SimulatedNode:
    """What outlives the process: the disk, the machine with its containers, and the plan for it."""

    def __init__(self, world: World, plan: NodePlan) -> None:
        self.world = world
        self.plan = plan
        self.peer = PeerID(plan.name)
        self.requester_disk = Durable()
        self.compute_disk = Durable()
        faults = [fault for fault in world.plan.faults if getattr(fault, "node", None) == plan.name]
        self.engine = Engine(self, [fault for fault in faults if isinstance(fault, StepFault)])
        self._points = {
            (fault.commit, fault.point): fault for fault in faults if isinstance(fault, CrashPoint)
        }
        self._slow = [fault for fault in faults if isinstance(fault, SlowDisk)]
        self._full = [fault for fault in faults if isinstance(fault, FullDisk)]
        self.life: Life | None = None
        self.gone = False
        self.lives = 0
        self.commits = 0
        self._ids = 0

    def new_execution_id(self) -> ExecutionID:
        self._ids += 1
        return ExecutionID(f"e-{self.peer}-{self._ids}")

    def new_message_id(self) -> MessageID:
        self._ids += 1
        return MessageID(f"{self.peer}.{self._ids}".encode().ljust(16, b"."))

    def start(self) -> None:
        """A new life of the process, unless one is under way or it has left for good."""
        if self.life is None and not self.gone:
            self.lives += 1
            self.life = Life(self)
            self.world.note(self.peer, "started", None, f"life {self.lives}")
            self.life.begin()
            self.world.connections.came_up(self)

    def stop(self, *, power: bool = False) -> None:
        """The process ends at once."""
        if self.life is None:
            return
        self.life.dead = True
        self.life = None
        self.engine.process_died(power=power)
        if power:
            for disk in (self.requester_disk, self.compute_disk):
                disk.lose_power(self.world.rng.random())
        self.world.note(self.peer, "power cut" if power else "stopped", None, "")
        self.world.connections.went_down(self)
        self.world.watch.node_stopped(self, power=power)

    def crash_planned(self, point: Point) -> CrashPoint | None:
        return None if self.world.healed else self._points.pop((self.commits, point), None)

    def disk_is_full(self) -> bool:
        since = self.world.since_start
        return any(fault.start <= since < fault.end for fault in self._full)

    def commit_takes(self) -> float:
        since = self.world.since_start
        return max((fault.seconds for fault in self._slow if fault.start <= since < fault.end), default=0.0)


class Life:
    """One process of a node: its machines, its delivery, and all that a kill takes away."""

    def __init__(self, node: SimulatedNode) -> None:
        self.node = node
        self.world = node.world
        self.dead = False
        self.began = node.world.now
        self.busy_until = 0.0
        """Until when the disk holds the process up."""
        self._clock = 0.0
        self._finished: list[MessageID] = []
        rng = rng_for(node.world.plan.seed, f"{node.peer}:{node.lives}")
        self.delivery = Delivery(rng.random)
        self._delivery_wakes: float | None = None
        self._told_info_at = 0.0
        self._info_version = 0
        self._told_reserved = Resources()
        self.known_nodes = KnownNodes()
        self.requester = self._open_requester(rng) if node.plan.requester else None
        self.compute = self._open_compute(rng) if node.plan.compute else None

    def _open_requester(self, rng: Random) -> Component:
        host = RequesterEnvironment(
            peer_id=self.node.peer, addresses=(), open_proposal=decode_proposal, rng=rng
        )
        return Component(self, RequesterMachine(host), self.node.requester_disk, perform_for_requester)

    def _open_compute(self, rng: Random) -> Component:
        room = Resources(cpu=self.node.plan.cpu, memory=2**36, disk=self.node.plan.disk)
        ids = iter(self.node.new_execution_id, None)
        machine = ComputeMachine(ComputeEnvironment(execution_ids=ids, rng=rng, capacity=Capacity(room)))
        return Component(self, machine, self.node.compute_disk, perform_for_compute)

    # --- beginning ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Resume what the disk holds, then live."""
        now = self.clock()
        if self.requester is not None:
            self._resume_delivery(self.requester.durable, now)
            self._resume_jobs(self.requester)
            self.world.at(self.world.now + PUBLISH_INTERVAL, self.guarded(self._expire_known_nodes))
        if self.compute is not None:
            self._resume_delivery(self.compute.durable, now)
            self._resume_executions(self.compute, now)
        self._publish_info()
        self.delivery_moved()

    def _resume_delivery(self, disk: Durable, now: float) -> None:
        for posted in disk.outbox.values():
            self.delivery.resume(posted.to, posted.envelope, give_up_at=posted.give_up_at, now=now)
        for (author, message_id), since in disk.inbox.items():
            self.delivery.remember(author, message_id, since)

    def _resume_jobs(self, requester: Component) -> None:
        records = requester.durable.records.values()
        executions: dict[str, list[Execution]] = {}
        for record in records:
            if isinstance(record, Execution):
                executions.setdefault(record.job_id, []).append(record)
        for record in records:
            if isinstance(record, Job) and not record.state.terminal:
                requester.put(rv.Resumed(record, tuple(executions.get(record.id, ()))))

    def _resume_executions(self, compute: Component, now: float) -> None:
        disk = compute.durable
        disk.forget([key for key, e in disk.records.items() if e.state.terminal and e.expires <= now])
        resumed: list[ComputeExecution] = list(disk.records.values())
        self.node.engine.sweep(resumed)
        for execution in resumed:
            compute.put(cv.Resumed(execution))

    # --- time -----------------------------------------------------------------------------------

    def clock(self) -> float:
        """This node's clock, which never goes back."""
        self._clock = max(self._clock, self.world.now + self.node.plan.skew)
        return self._clock

    def clock_is_at_least(self, then: float) -> None:
        """Rounding must not let a deadline that has come lie a little ahead."""
        self._clock = max(self._clock, then)

    def world_time(self, clock: float) -> float:
        return clock - self.node.plan.skew

    def guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work`, unless this life is over by then."""

        def if_alive() -> None:
            if not self.dead:
                work()

        return if_alive

    # --- the disk -------------------------------------------------------------------------------

    def begin_commit(self) -> None:
        node = self.node
        node.commits += 1
        self.point("before commit")
        if node.disk_is_full():
            self.world.struck("full disk")
            raise Died(node, 1.0, power=False)
        if (takes := node.commit_takes()) > 0:
            self.world.struck("slow disk")
            self.busy_until = self.world.now + takes

    def point(self, point: Point) -> None:
        """The process may be planned to die here."""
        fault = self.node.crash_planned(point)
        if fault is not None:
            self.world.struck(f"crash {point}")
            raise Died(self.node, fault.down, power=fault.power)

    def take_finished(self, disk: Durable) -> list[MessageID]:
        """Messages of this disk's outbox that nobody need keep any more."""
        self._finished += self.delivery.take_finished()
        mine = [message_id for message_id in self._finished if message_id in disk.outbox]
        self._finished = [message_id for message_id in self._finished if message_id not in disk.outbox]
        return mine

    # --- speaking -------------------------------------------------------------------------------

    def envelope(self, message: Message, to: PeerID | None) -> Envelope:
        return Envelope(id=self.node.new_message_id(), message=message, to=to, sent=self.clock())

    def compose(self, to: PeerID, message: Message, give_up_at: float) -> OutboxMessage:
        return OutboxMessage(to, self.envelope(message, to), give_up_at)

    def dispatch(self, posted: OutboxMessage) -> None:
        """Send a message, and repeat it if its carrier is direct."""
        if posted.envelope.message.carrier is Carrier.DIRECT:
            self.world.watch.sent[posted.envelope.message.kind] += 1
            now = self.clock()
            self.delivery.post(posted.to, posted.envelope, give_up_at=posted.give_up_at, now=now)
            self.delivery_moved()
        self._transmit(posted.to, posted.envelope)

    def broadcast(self, message: Message) -> None:
        envelope = self.envelope(message, None)
        self.world.note(self.node.peer, "broadcast", None, message)
        for node in self.world.nodes.values():
            if node is not self.node and _interests(node.plan, message):
                self.world.transmit(self.node.peer, node.peer, envelope)
        self._hand_over(Arrival(self.node.peer, message))

    def _transmit(self, to: PeerID, envelope: Envelope) -> None:
        if to == self.node.peer:
            self.world.at(self.world.now, self.guarded(lambda: self.receive(to, envelope)))
            return
        if acks := self.delivery.take_acks(to):
            self.world.transmit(self.node.peer, to, self.envelope(say.Ack(ids=acks), to))
        self.world.transmit(self.node.peer, to, envelope)

    def settle(self, arrival: Arrival) -> None:
        """What this message changed is kept."""
        assert arrival.id is not None
        self.delivery.mark_processed(arrival.author, arrival.id, self.clock())
        self.delivery_moved()

    # --- hearing --------------------------------------------------------------------------------

    def receive(self, author: PeerID, envelope: Envelope) -> None:
        if self.world.now < self.busy_until:
            self.world.at(self.busy_until, self.guarded(lambda: self.receive(author, envelope)))
            return
        message = envelope.message
        if isinstance(message, say.Ack):
            self.world.watch.acknowledged(self.node, author, message.ids)
            self.delivery.acknowledged(author, message.ids)
            self._tidy_later()
        elif message.carrier is not Carrier.DIRECT:
            self._hand_over(Arrival(author, message))
        else:
            match self.delivery.recognise(author, envelope.id, self.clock()):
                case Recognition.NEW:
                    self._hand_over(Arrival(author, message, envelope.id))
                case Recognition.PROCESSED:
                    self.settle(Arrival(author, message, envelope.id))
                case Recognition.PENDING:
                    pass

    def _hand_over(self, arrival: Arrival) -> None:
        if self.requester is not None and type(arrival.message) in say.TO_REQUESTER:
            self.requester.hear(arrival)
        elif self.compute is not None and type(arrival.message) in say.TO_COMPUTE:
            self._hear_of_compute(self.compute, arrival)
        elif isinstance(arrival.message, say.NodeInfoPublished):
            self._hear_of_node(arrival.author, arrival.message.info)
        elif arrival.id is not None:
            self.settle(arrival)

    def _hear_of_compute(self, compute: Component, arrival: Arrival) -> None:
        if isinstance(arrival.message, say.JobAnnounced):
            assessment = _ASSESSOR.assess(arrival.message.spec)
            event = cv.AnnouncementReceived(arrival.author, arrival.message, assessment)
            compute.put_item(QueuedEvent(event, arrival))
        else:
            compute.hear(arrival)

    def _hear_of_node(self, author: PeerID, info: NodeInfo) -> None:
        known = info.id == author and self.known_nodes.update(info, self.clock())
        if known and self.requester is not None:
            self.requester.put(rv.NodeSeen(info))

    def _expire_known_nodes(self) -> None:
        for peer in self.known_nodes.expire(self.clock()):
            assert self.requester is not None
            self.requester.put(rv.NodeWentStale(peer))
        self.world.at(self.world.now + PUBLISH_INTERVAL, self.guarded(self._expire_known_nodes))

    def connection(self, peer: PeerID, *, stands: bool) -> None:
        if stands:
            self.delivery.peer_reconnected(peer, self.clock())
            self.delivery_moved()
        if self.requester is not None:
            self.requester.put(rv.ConnectionStands(peer) if stands else rv.ConnectionBroke(peer))

    # --- delivery's clock -----------------------------------------------------------------------

    def delivery_moved(self) -> None:
        due = self.delivery.next_deadline()
        if due is None:
            return
        when = max(self.world.now, self.world_time(due))
        if self._delivery_wakes is None or when < self._delivery_wakes:
            self._delivery_wakes = when
            self.world.at(when, self.guarded(lambda: self._delivery_due(when, due)))

    def _delivery_due(self, when: float, due: float) -> None:
        if self._delivery_wakes != when:
            return
        if self.world.now < self.busy_until:
            self._delivery_wakes = self.busy_until
            later = self.busy_until
            self.world.at(later, self.guarded(lambda: self._delivery_due(later, due)))
            return
        self._delivery_wakes = None
        self.clock_is_at_least(due)
        now = self.clock()
        for to, envelope in self.delivery.repeats(now):
            self.world.repeated(self.node.peer, envelope)
            self._transmit(to, envelope)
        for peer in self.delivery.acks_due(now):
            if not (ids := self.delivery.take_acks(peer)):
                continue
            if peer == self.node.peer:
                self.world.watch.acknowledged(self.node, peer, ids)
                self.delivery.acknowledged(peer, ids)
            else:
                self.world.transmit(self.node.peer, peer, self.envelope(say.Ack(ids=ids), peer))
        self._tidy_later()
        self.delivery_moved()

    def _tidy_later(self) -> None:
        known = bool(self._finished)
        self._finished += self.delivery.take_finished()
        if self._finished and not known:
            self.world.at(self.world.now + TIDY_AFTER, self.guarded(self._tidy))

    def _tidy(self) -> None:
        for component in (self.requester, self.compute):
            if component is not None:
                component.tidy()
        self._finished.clear()

    def after_tick(self, component: Component) -> None:
        """A tick has handled its events."""
        machine = component.machine
        if isinstance(machine, ComputeMachine) and machine.capacity.reserved != self._told_reserved:
            self._told_reserved = machine.capacity.reserved
            self.changed()

    # --- telling everybody who we are -----------------------------------------------------------

    def changed(self) -> None:
        """There is news: tell it soon, but not more than once a second."""
        when = max(self.world.now, self._told_info_at + MIN_PUBLISH_INTERVAL)
        self._info_version += 1
        version = self._info_version
        self.world.at(when, self.guarded(lambda: self._publish_if(version)))

    def _publish_if(self, version: int) -> None:
        if version == self._info_version:
            self._publish_info()

    def _publish_info(self) -> None:
        self._told_info_at = self.world.now
        self.broadcast(say.NodeInfoPublished(info=self._info()))
        self._info_version += 1
        version = self._info_version
        self.world.at(self.world.now + PUBLISH_INTERVAL, self.guarded(lambda: self._publish_if(version)))

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
            id=self.node.peer, requester=self.requester is not None, compute=compute, sent=self.clock()
        )


def _no_faults(config: SpecConfig) -> list[Fault]:
    return []


_OFFER = Offer(
    engines={"noop": _no_faults, OUTLIVING: _no_faults},
    sources={DATA: _no_faults},
    publishers={"ipfs": _no_faults},
    outliving=frozenset({OUTLIVING}),
)
_ASSESSOR = Assessor(offer=lambda: _OFFER)


def _interests(plan: NodePlan, message: Message) -> bool:
    if isinstance(message, say.NodeInfoPublished):
        return plan.requester
    return plan.compute
