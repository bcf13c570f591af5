"""The planned faults of whole nodes: crashes, nodes that leave or drain, and a stranger's messages.

Faults of messages, disks and steps are made by the network, the disk and the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from bacalhau_p2p.compute import events as cv
from bacalhau_p2p.model.base import PeerID
from tests.simulation.nodes.component import Component
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.nodes.process import Died, Process
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import Crash, Drain, Forgery, Leave, Plan, Prune
from tests.simulation.worlds.stranger import Stranger

HAND_BACK_SECONDS = 1.0
"""Seconds that a draining node has to hand back its executions."""


class Faults:
    """Schedules the faults of a plan."""

    def __init__(
        self,
        timeline: Timeline,
        nodes: Mapping[PeerID, SimulatedNode],
        stranger: Stranger,
        *,
        start: Callable[[SimulatedNode], None],
        stop: Callable[[SimulatedNode, bool], None],
    ) -> None:
        """`start` and `stop` do so with a node and let others notice; `stop` with whether it loses power."""
        self._timeline = timeline
        self._nodes = nodes
        self._stranger = stranger
        self._start = start
        self._stop = stop

    def begin(self, plan: Plan) -> None:
        start = self._timeline.start
        for fault in plan.faults:
            match fault:
                case Crash(at=at):
                    self._timeline.at(start + at, partial(self._crash, fault))
                case Leave(at=at):
                    self._timeline.at(start + at, partial(self._leave, fault))
                case Drain(at=at):
                    self._timeline.at(start + at, partial(self._drain, fault))
                case Prune(at=at):
                    self._timeline.at(start + at, partial(self._prune, fault))
                case Forgery(at=at):
                    self._timeline.at(start + at, partial(self._stranger.speak, fault))

    def died(self, death: Died) -> None:
        """A process has ended by itself: stop the node, and start it again later."""
        node = self._nodes[death.peer]
        self._stop(node, death.power)
        self._start_in(node, death.down)

    def _start_in(self, node: SimulatedNode, seconds: float) -> None:
        self._timeline.at(self._timeline.now + seconds, partial(self._start, node))

    def _crash(self, fault: Crash) -> None:
        node = self._nodes.get(PeerID(fault.node))
        if node is not None and node.running is not None and not self._timeline.healed:
            self._timeline.count_fault("power cut" if fault.power else "crash")
            self._stop(node, fault.power)
            self._start_in(node, fault.down)

    def _leave(self, fault: Leave) -> None:
        node = self._nodes.get(PeerID(fault.node))
        if node is not None:
            self._timeline.count_fault("leave")
            node.gone = True
            self._stop(node, False)

    def _prune(self, fault: Prune) -> None:
        node = self._nodes.get(PeerID(fault.node))
        if node is None or node.running is None:
            return
        if sum([store.prune() for store in node.disk.stores]) > 0:
            self._timeline.count_fault("pruned")

    def _drain(self, fault: Drain) -> None:
        node = self._nodes.get(PeerID(fault.node))
        if node is None or node.running is None or (compute := node.running.compute) is None:
            return
        self._timeline.count_fault("drain")
        compute.put(cv.StopBidding())
        process = node.running.process
        hand_back = partial(self._hand_back, node, process, compute, fault.down)
        process.at(self._timeline.now + fault.grace, hand_back)

    def _hand_back(self, node: SimulatedNode, process: Process, compute: Component, down: float) -> None:
        compute.put(cv.HandBack())

        def end() -> None:
            self._stop(node, False)
            self._start_in(node, down)

        process.at(self._timeline.now + HAND_BACK_SECONDS, end)
