"""Who notices when that a peer cannot be reached, or can be reached again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.nodes.network import grained
from tests.simulation.plans.plan import Partition

if TYPE_CHECKING:
    from tests.simulation.nodes.node import SimulatedNode
    from tests.simulation.worlds.world import World

_BROKEN = -1


class Connections:
    """Each node's view of each other: the life of the peer that it is connected to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._views: dict[tuple[str, str], int] = {}

    def plan(self) -> None:
        """Let partitions be noticed."""
        world = self._world
        for partition in world.plan.faults:
            if isinstance(partition, Partition):
                world.at(world.start + partition.start, lambda: self._look_everywhere(0.2, 5.0))
                world.at(world.start + partition.end, lambda: self._look_everywhere(0.05, 3.0))

    def came_up(self, node: SimulatedNode) -> None:
        for other in self._others(node):
            self._views.pop((node.peer, other.peer), None)
            self._look_soon(node, other, 0.05, 2.0)
            self._look_soon(other, node, 0.05, 2.0)

    def went_down(self, node: SimulatedNode) -> None:
        for other in self._others(node):
            self._look_soon(other, node, 0.2, 5.0)

    def _others(self, node: SimulatedNode) -> list[SimulatedNode]:
        return [other for other in self._world.nodes.values() if other is not node]

    def _look_everywhere(self, soonest: float, latest: float) -> None:
        for node in self._world.nodes.values():
            for other in self._others(node):
                self._look_soon(node, other, soonest, latest)

    def _look_soon(self, observer: SimulatedNode, peer: SimulatedNode, soonest: float, latest: float) -> None:
        when = self._world.now + self._world.rng.uniform(soonest, latest)
        self._world.at(grained(when), lambda: self._look(observer, peer))

    def _look(self, observer: SimulatedNode, peer: SimulatedNode) -> None:
        life, now = observer.life, self._world.now
        if life is None:
            return
        if now < life.busy_until:
            self._world.at(life.busy_until, lambda: self._look(observer, peer))
            return
        wires = self._world.wires
        linked = peer.life is not None and not (
            wires.cut(observer.peer, peer.peer, now) or wires.cut(peer.peer, observer.peer, now)
        )
        key = (observer.peer, peer.peer)
        before = self._views.get(key)
        if linked and before != peer.lives:
            self._views[key] = peer.lives
            life.connection(peer.peer, stands=True)
        elif not linked and before not in (None, _BROKEN):
            self._views[key] = _BROKEN
            life.connection(peer.peer, stands=False)
