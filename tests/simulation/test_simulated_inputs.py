"""Networks whose jobs have inputs: nodes inspect them before they bid, and no promise is broken by it."""

from __future__ import annotations

from collections import Counter

from tests.simulation.plans.expand import expand
from tests.simulation.plans.inputs import with_inputs
from tests.simulation.worlds.world import World

WORLDS = range(1, 61)


def test_every_promise_is_kept_where_nodes_inspect_inputs_before_they_bid():
    struck: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    inspected = 0
    for seed in WORLDS:
        world = World(with_inputs(expand(seed)))
        outcome = world.run()
        assert outcome.violation is None, f"{outcome.violation}\n{outcome.plan}"
        struck += outcome.struck
        ends += Counter(world.users.ends())
        inspected += sum(node.engine.inspections for node in world.nodes.values())
    assert inspected >= 200
    assert struck["inspect: hang"] >= 5
    assert ends["Completed"] >= 40
