"""Networks with more nodes than a requester asks at once: some connected ones are asked alone, and no promise
is broken by it, whatever is lost or late."""

from __future__ import annotations

from collections import Counter

from bacalhau_p2p.model.history import EventKind
from tests.simulation.plans.expand import expand
from tests.simulation.plans.many import with_many_nodes
from tests.simulation.worlds.world import World

WORLDS = range(1, 41)


def test_every_promise_is_kept_where_some_connected_nodes_alone_are_asked_first():
    ends: Counter[str] = Counter()
    directly = again = 0
    for seed in WORLDS:
        world = World(with_many_nodes(expand(seed)))
        outcome = world.run()
        assert outcome.violation is None, f"{outcome.violation}\n{outcome.plan}"
        ends += Counter(world.users.ends())
        stores = [node.disk.requester_store for node in world.nodes.values()]
        for history in (events for store in stores for events in store.histories.values()):
            first, *later = [each.message for each in history if each.kind is EventKind.ANNOUNCED] or [""]
            directly += "asked directly" in first
            again += bool(later) and "asked directly" in first
    assert directly >= 40
    assert again >= 10
    assert ends["Completed"] >= 60
