"""A large network with its users, on one timeline: the real machines, as in the worlds of layer 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from bacalhau_p2p.bprotocol.codec import Envelope
from bacalhau_p2p.bprotocol.messages import NodeInfoPublished
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import JobState
from tests.simulation.checks.watch import Watch
from tests.simulation.crowds.figures import Figures, Summary, summary
from tests.simulation.crowds.mesh import MeshNetwork
from tests.simulation.nodes.network import next_step
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import Fault, JobPlan, Loss, NodePlan, Plan, StepFault
from tests.simulation.plans.rng import rng_for
from tests.simulation.worlds.users import Users

START = 10_000.0
WARM_UP = 5.0
"""Seconds from the start of the nodes to the first job."""
MOST_SECONDS = 900.0
"""Of the world's time."""
REQUESTERS = 3
COUNTS = (1, 1, 1, 1, 1, 3, 3, 3, 10)
INTERVAL = 0.5
"""Seconds between two jobs."""
HOP_LOSS, BAD_HOP_LOSS = 0.01, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CrowdPlan:
    """A large network, expanded from a seed."""

    seed: int
    nodes: int
    jobs: int = 100
    known: float = 1.0
    """Nodes that each requester knows for each that there is. Above 1: those of a network that has shrunk."""
    connected: int = 0
    """Nodes that each requester is connected to. It asks some of them before it asks everybody."""
    inputs: bool = False
    """Jobs have inputs, which one node in twenty has: nodes look at them for up to 40 ms before they bid."""
    faults: bool = False
    """Some nodes are killed or slow to prepare a job, and messages are lost."""


def run(plan: CrowdPlan) -> Summary:
    """Raises Violation when a promise is broken."""
    return _Crowd(plan).run()


class _Crowd:
    def __init__(self, plan: CrowdPlan) -> None:
        self._plan = plan
        self._rng = rng_for(plan.seed, f"crowd of {plan.nodes}")
        self._timeline = _Timeline(START)
        self._world = _expanded(plan, self._rng)
        self._figures = Figures({job.name: job.count for job in self._world.jobs})
        self._nodes: dict[PeerID, SimulatedNode] = {}
        self._computes = [PeerID(node.name) for node in self._world.nodes if node.compute]
        self._network = MeshNetwork(
            self._world,
            self._timeline,
            self._figures,
            hop_loss=BAD_HOP_LOSS if plan.faults else HOP_LOSS,
            is_up=lambda peer: self._nodes[peer].running is not None,
            knows=self._knows,
        )
        jobs = {job.name: job for job in self._world.jobs}
        watch = Watch(self._timeline, self._nodes, jobs)
        for each in self._world.nodes:
            node = SimulatedNode(each, self._world, jobs, self._timeline, self._network, watch)
            self._nodes[node.peer] = node
        self._users = Users(jobs, self._timeline, self._nodes, watch.answered)
        links = rng_for(plan.seed, "links")
        connected = min(plan.connected, len(self._computes))
        self._links = {
            node.peer: frozenset(links.sample(self._computes, connected))
            for node in self._nodes.values()
            if node.plan.requester
        }

    def run(self) -> Summary:
        for node in self._nodes.values():
            begins = 0.0 if node.plan.requester else 0.1 + self._rng.random()
            self._timeline.at(START + begins, partial(self._start, node.peer))
        self._timeline.at(START + WARM_UP / 2, self._tell_of_nodes_that_left)
        if self._plan.faults:
            self._plan_kills()
        self._users.begin()
        self._timeline.at(START + WARM_UP, self._check)
        self._over = False
        while not self._over and (what := self._timeline.advance()) is not None:
            what()
        completed = sum(state == JobState.COMPLETED for state in self._users.ends())
        return summary(self._figures, nodes=len(self._nodes), completed=completed)

    def _knows(self, requester: PeerID, node: PeerID) -> bool:
        """Whether a requester knows this node: always, or for a share of them and those that it is connected
        to."""
        return (
            self._plan.known >= 1
            or node in self._links.get(requester, ())
            or rng_for(0, f"{requester} knows {node}").random() < self._plan.known
        )

    def _tell_of_nodes_that_left(self) -> None:
        """What a requester knows of a network that was larger, and has just shrunk."""
        gone = round((self._plan.known - 1) * self._plan.nodes)
        for requester in (node for node in self._nodes.values() if node.plan.requester):
            assert requester.running is not None
            for number in range(gone):
                info = _info(PeerID(f"gone-{number}"))
                message = NodeInfoPublished(info=info)
                envelope = Envelope(id=f"{info.id}".encode().ljust(16)[:16], message=message)  # type: ignore[arg-type]
                requester.running.receive(info.id, envelope)

    def _plan_kills(self) -> None:
        """A tenth of the nodes are killed while jobs are submitted, and are back after a while."""
        lasts = WARM_UP + INTERVAL * self._plan.jobs
        for peer in self._rng.sample(self._computes, len(self._computes) // 10):
            at = START + self._rng.uniform(WARM_UP, lasts)
            self._timeline.at(at, partial(self._stop, peer))
            self._timeline.at(at + self._rng.uniform(1, 60), partial(self._start, peer))

    def _start(self, peer: PeerID) -> None:
        self._nodes[peer].start()
        if (running := self._nodes[peer].running) is not None:
            running.infos.publish()  # its neighbours of the mesh, which is taken to stand, pass it on
        self._tell_of_connection(peer, after=self._rng.uniform(0.05, 1.0), stands=True)

    def _stop(self, peer: PeerID) -> None:
        self._nodes[peer].stop(power=False, rng=self._rng)
        self._timeline.count_fault("kill")
        self._tell_of_connection(peer, after=self._rng.uniform(0.05, 5.0), stands=False)

    def _tell_of_connection(self, peer: PeerID, *, after: float, stands: bool) -> None:
        """The requesters that are connected to this node notice that it came or went."""
        for requester, linked in self._links.items():
            if peer in linked:
                told = partial(self._notice, requester, peer, stands)
                self._timeline.at(next_step(self._timeline.now + after), told)

    def _notice(self, requester: PeerID, peer: PeerID, stands: bool) -> None:
        running = self._nodes[requester].running
        if running is not None and (self._nodes[peer].running is not None) == stands:
            running.connection_changed(peer, stands=stands)

    def _check(self) -> None:
        now = self._timeline.now
        done = len(self._users.ends()) == len(self._users.all) and all(map(_is_terminal, self._users.ends()))
        self._over = done or now > START + MOST_SECONDS
        self._timeline.at(now + 5.0, self._check)


class _Timeline(Timeline):
    """Without a story: it would hold what a thousand nodes received."""

    def note(self, who: str, what: str, arrival: object, about: object) -> None:
        pass


def _is_terminal(state: str) -> bool:
    return JobState(state).terminal


def _expanded(plan: CrowdPlan, rng: Random) -> Plan:
    requesters = [NodePlan(name=f"r{number}", requester=True, compute=False) for number in range(REQUESTERS)]
    computes = [
        NodePlan(
            name=f"c{number}",
            cpu=8.0,
            speed=rng.uniform(0.5, 2),
            holds_data=plan.inputs and number % 20 == 0,
        )
        for number in range(plan.nodes)
    ]
    most = max(1, plan.nodes // 3)
    jobs = tuple(
        JobPlan(
            name=f"j{number}",
            requester=f"r{number % REQUESTERS}",
            at=WARM_UP + INTERVAL * number,
            count=min(COUNTS[number % len(COUNTS)], most),
            prepare=0.1,
            run=rng.uniform(0.1, 3.0),
            publish=0.1,
            inspection=0.02 if plan.inputs else None,
            input_disk=1000 if plan.inputs else 0,
        )
        for number in range(plan.jobs)
    )
    faults: list[Fault] = []
    if plan.faults:
        faults.append(Loss(start=0.0, end=MOST_SECONDS, rate=0.02))
        faults += [
            StepFault(node=node.name, step="prepare", number=1, outcome="retryable")
            for node in computes
            if rng.random() < 0.05
        ]
    nodes = (*requesters, *computes)
    return Plan(seed=plan.seed, nodes=nodes, jobs=jobs, faults=tuple(faults), heal_at=MOST_SECONDS)


def _info(peer: PeerID) -> NodeInfo:
    """Of a node that is like all others, and gone."""
    room = Resources(cpu=8.0, memory=2**36, disk=2**42)
    return NodeInfo(
        id=peer,
        interval=3600.0,
        sent=START,
        compute=ComputeInfo(
            engines=("noop", "container"),
            storage_sources=("data",),
            publishers=("ipfs",),
            max_capacity=room,
            available_capacity=room,
        ),
    )


def variants(plan: CrowdPlan) -> Mapping[str, CrowdPlan]:
    """The same network when all is well, when requesters think that it is ten times smaller or larger, when
    they are connected to some nodes, and when nodes and messages are lost."""
    return {
        "known as it is": plan,
        "a tenth of it known": replace(plan, known=0.1),
        "nine of ten known nodes gone": replace(plan, known=10.0),
        "with faults": replace(plan, faults=True),
        "40 nodes connected": replace(plan, connected=40),
        "40 nodes connected, with faults": replace(plan, connected=40, faults=True),
        "40 nodes connected, jobs with inputs": replace(plan, connected=40, inputs=True),
        "a tenth of it known, jobs with inputs": replace(plan, known=0.1, inputs=True),
        "nine of ten known nodes gone, jobs with inputs": replace(plan, known=10.0, inputs=True),
    }
