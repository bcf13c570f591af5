"""A simulated node: what outlives its processes, and the process that runs now, if any."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.codec import Envelope
from bacalhau_p2p.bprotocol.messages import Message
from bacalhau_p2p.model.base import PeerID
from tests.simulation.nodes.disk import Disk
from tests.simulation.nodes.engine import Engine
from tests.simulation.nodes.network import Network
from tests.simulation.nodes.observer import Observer
from tests.simulation.nodes.running_node import Host, Ids, RunningNode
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import JobPlan, NodePlan, Plan, StepFault
from tests.simulation.plans.rng import rng_for


class SimulatedNode:
    """Starts and stops."""

    def __init__(
        self,
        plan: NodePlan,
        world: Plan,
        jobs: Mapping[str, JobPlan],
        timeline: Timeline,
        network: Network,
        observer: Observer,
    ) -> None:
        """`jobs` are all jobs of the world, by name."""
        self.plan = plan
        self.peer = PeerID(plan.name)
        faults = [fault for fault in world.faults if getattr(fault, "node", None) == plan.name]
        self.disk = Disk(self.peer, faults, timeline)
        self.engine = Engine(plan, jobs, [each for each in faults if isinstance(each, StepFault)], timeline)
        self.running: RunningNode | None = None
        self.gone = False
        """Whether it has left for good."""
        self.starts = 0
        self._seed = world.seed
        self._host = Host(
            plan=plan,
            disk=self.disk,
            engine=self.engine,
            ids=Ids(self.peer),
            timeline=timeline,
            network=network,
            observer=observer,
        )
        network.attach(self.peer, self._receive, self._listens_to)

    def start(self) -> bool:
        """Start a process, unless one is running or the node has left for good."""
        if self.running is not None or self.gone:
            return False
        self.starts += 1
        rng = rng_for(self._seed, f"{self.peer}:{self.starts}")
        self.running = RunningNode(self._host, rng)
        self._host.timeline.note(self.peer, "started", None, f"life {self.starts}")
        self.running.begin()
        return True

    def stop(self, *, power: bool, rng: Random) -> bool:
        """End the process at once, if one is running. With `power` the machine loses power: its runs end, and
        commits that were not synced may be undone."""
        if self.running is None:
            return False
        self.running.process.dead = True
        self.running = None
        self.engine.process_died(power=power)
        if power:
            for store in self.disk.stores:
                store.lose_power(rng.random())
        self._host.timeline.note(self.peer, "power cut" if power else "stopped", None, "")
        return True

    def _receive(self, author: PeerID, envelope: Envelope) -> None:
        if self.running is not None:
            self.running.receive(author, envelope)

    def _listens_to(self, message: Message) -> bool:
        if isinstance(message, say.NodeInfoPublished):
            return self.plan.requester
        return self.plan.compute
