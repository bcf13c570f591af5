"""One simulated world: nodes, their users and what goes wrong, on one timeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from bacalhau_p2p.components.transitions import InvalidTransition
from bacalhau_p2p.model.base import PeerID
from tests.simulation.checks.ending import CHECK_INTERVAL, Ending
from tests.simulation.checks.violation import Violation
from tests.simulation.checks.watch import Watch
from tests.simulation.nodes.network import Network
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.nodes.process import Died
from tests.simulation.nodes.timeline import Note, Timeline
from tests.simulation.plans.plan import Plan
from tests.simulation.plans.rng import rng_for
from tests.simulation.worlds.claimants import Claimants
from tests.simulation.worlds.connections import Connections
from tests.simulation.worlds.faults import Faults
from tests.simulation.worlds.stranger import Stranger
from tests.simulation.worlds.users import Users

START = 10_000.0
"""The clock at the beginning: later than any node's clock is behind."""
MAX_EVENTS = 400_000
"""In a world that ends; more is a loop."""


@dataclass(frozen=True, slots=True)
class Outcome:
    plan: Plan
    violation: Violation | None
    events: int
    ended: float
    """Seconds of the world's time that it took."""
    struck: Counter[str]
    """How often each kind of fault really had a chance to do harm."""
    notes: Sequence[Note] = field(repr=False)


class World:
    """Build it from a plan and `run` it, once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        jobs = {job.name: job for job in plan.jobs}
        self.nodes: dict[PeerID, SimulatedNode] = {}
        self._rng = rng_for(plan.seed, "world")
        self._timeline = Timeline(START)
        network = Network(plan, self._timeline)
        self.watch = Watch(self._timeline, self.nodes, jobs)
        for each in plan.nodes:
            node = SimulatedNode(each, plan, jobs, self._timeline, network, self.watch)
            self.nodes[node.peer] = node
        self._connections = Connections(self._timeline, network, self.nodes, self._rng)
        self.users = Users(jobs, self._timeline, self.nodes, self.watch.answered)
        self._claimants = Claimants(plan.claimants, self._timeline, network, self.nodes)
        stranger = Stranger(self._timeline, network, self.nodes)
        self._faults = Faults(self._timeline, self.nodes, stranger, start=self._start, stop=self._stop)
        self._ending = Ending(plan, self._timeline, self.nodes, self.users.all, self.watch)
        self._over = False

    def run(self) -> Outcome:
        """Until all is over, or a promise is broken."""
        self._begin()
        events, violation = 0, None
        try:
            while not self._over and (what := self._timeline.advance()) is not None:
                events += 1
                if events > MAX_EVENTS * (3 if self.plan.whole_day else 1):
                    raise Violation("endless", "the world does not come to rest")
                try:
                    what()
                except Died as death:
                    self._faults.died(death)
        except Violation as found:
            violation = found
        except InvalidTransition as found:
            violation = Violation("table", str(found))
        timeline = self._timeline
        return Outcome(self.plan, violation, events, timeline.since_start, timeline.faults, timeline.notes)

    def _begin(self) -> None:
        start = self._timeline.start
        for node in self.nodes.values():
            self._timeline.at(start + node.plan.joins, partial(self._start, node))
        self._claimants.begin()
        self.users.begin()
        self._connections.watch_partitions(self.plan)
        self._faults.begin(self.plan)
        self._timeline.at(start + self.plan.heal_at, self._heal)
        self._timeline.at(start + CHECK_INTERVAL, self._check)

    def _start(self, node: SimulatedNode) -> None:
        if node.start():
            self._connections.node_started(node)

    def _stop(self, node: SimulatedNode, power: bool) -> None:
        if node.stop(power=power, rng=self._rng):
            self._connections.node_stopped(node)
            self.watch.stopped(node, power=power)

    def _heal(self) -> None:
        self._timeline.healed = True
        self._timeline.note("world", "healed", None, "")
        for node in self.nodes.values():
            self._start(node)

    def _check(self) -> None:
        self._over = self._ending.is_over()
        slow = (self.plan.whole_day or self.plan.abandoned) and self._timeline.healed
        self._timeline.at(self._timeline.now + (60.0 if slow else CHECK_INTERVAL), self._check)
