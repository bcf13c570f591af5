"""When each node notices that a peer cannot be reached, or can be reached again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from random import Random

from bacalhau_p2p.model.base import PeerID
from tests.simulation.nodes.network import Network, next_step
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import Partition, Plan

_BROKEN = -1


class Connections:
    """Each node's view of each other: which of the peer's processes it is connected to."""

    def __init__(
        self, timeline: Timeline, network: Network, nodes: Mapping[PeerID, SimulatedNode], rng: Random
    ) -> None:
        self._timeline = timeline
        self._network = network
        self._nodes = nodes
        self._rng = rng
        self._views: dict[tuple[PeerID, PeerID], int] = {}

    def watch_partitions(self, plan: Plan) -> None:
        """Let the beginning and the end of each partition be noticed."""
        start = self._timeline.start
        for fault in plan.faults:
            if isinstance(fault, Partition):
                self._timeline.at(start + fault.start, partial(self._check_all_soon, 0.2, 5.0))
                self._timeline.at(start + fault.end, partial(self._check_all_soon, 0.05, 3.0))

    def node_started(self, node: SimulatedNode) -> None:
        for other in self._others(node):
            self._views.pop((node.peer, other.peer), None)
            self._check_soon(node, other, 0.05, 2.0)
            self._check_soon(other, node, 0.05, 2.0)

    def node_stopped(self, node: SimulatedNode) -> None:
        for other in self._others(node):
            self._check_soon(other, node, 0.2, 5.0)

    def _others(self, node: SimulatedNode) -> list[SimulatedNode]:
        return [other for other in self._nodes.values() if other is not node]

    def _check_all_soon(self, soonest: float, latest: float) -> None:
        for node in self._nodes.values():
            for other in self._others(node):
                self._check_soon(node, other, soonest, latest)

    def _check_soon(
        self, observer: SimulatedNode, peer: SimulatedNode, soonest: float, latest: float
    ) -> None:
        when = self._timeline.now + self._rng.uniform(soonest, latest)
        self._timeline.at(next_step(when), partial(self._check, observer, peer))

    def _check(self, observer: SimulatedNode, peer: SimulatedNode) -> None:
        running = observer.running
        if running is None:
            return
        if self._timeline.now < running.process.busy_until:
            # Whatever process runs when the disk has done its part: this one or the next.
            self._timeline.at(running.process.busy_until, partial(self._check, observer, peer))
            return
        linked = peer.running is not None and not self._network.are_separated(observer.peer, peer.peer)
        key = (observer.peer, peer.peer)
        before = self._views.get(key)
        if linked and before != peer.starts:
            self._views[key] = peer.starts
            running.connection_changed(peer.peer, stands=True)
        elif not linked and before not in (None, _BROKEN):
            self._views[key] = _BROKEN
            running.connection_changed(peer.peer, stands=False)
