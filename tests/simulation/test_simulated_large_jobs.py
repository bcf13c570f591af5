"""Networks whose jobs are large: nodes fetch their specs before they bid, and no promise is broken by it."""

from __future__ import annotations

from collections import Counter

from bacalhau_p2p.bprotocol.messages import JobOutlined, SpecDelivered
from tests.simulation.plans.expand import expand
from tests.simulation.plans.large import with_large_jobs
from tests.simulation.worlds.world import World

WORLDS = range(1, 41)


def test_every_promise_is_kept_where_nodes_fetch_specs_before_they_bid():
    ends: Counter[str] = Counter()
    received: Counter[type] = Counter()
    for seed in WORLDS:
        world = World(with_large_jobs(expand(seed)))
        outcome = world.run()
        assert outcome.violation is None, f"{outcome.violation}\n{outcome.plan}"
        ends += Counter(world.users.ends())
        received += Counter(type(arrival.message) for _, _, _, arrival, _ in outcome.notes if arrival)
    assert received[JobOutlined] >= 200
    assert received[SpecDelivered] >= 100
    assert ends["Completed"] >= 30
