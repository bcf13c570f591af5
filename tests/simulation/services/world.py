"""One world of whole nodes: their users, what goes wrong, and the time after it is healed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import trio

from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.transports.memory.links import LinkConditions
from tests.simulation.checks.violation import require
from tests.simulation.services.nodes import NAMES, Nodes, random_for
from tests.simulation.services.promises import all_ended, all_quiet, watch_slots
from tests.simulation.services.story import Story

JOBS = 5
TROUBLE = 60.0
"""Seconds of the world in which things go wrong; then all is healed."""


class World:
    """Build it from a seed and await `run`, once."""

    def __init__(self, seed: int, folder: Path) -> None:
        """`folder` is empty, and holds the data directories of the nodes."""
        self.story = Story()
        self._seed = seed
        self._rng = random_for(seed, "plan")
        self._nodes = Nodes(seed, folder, self.story)
        self._submitted: dict[str, JobID] = {}

    async def run(self) -> None:
        """Returns when all is over. Raises Violation, in an ExceptionGroup."""
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(self._nodes.keep_running, name)
            nursery.start_soon(watch_slots, self._nodes)
            nursery.start_soon(self._make_trouble)
            for number in range(JOBS):
                nursery.start_soon(self._submit, f"job-{number}", random_for(self._seed, f"user-{number}"))
            await trio.sleep(TROUBLE)
            self._heal()
            await all_ended(self._nodes, self._submitted, JOBS, self.story)
            await all_quiet(self._nodes)
            nursery.cancel_scope.cancel()

    # --- what goes wrong ----------------------------------------------------------------------------

    async def _make_trouble(self) -> None:
        rng = self._rng
        if rng.random() < 0.7:
            conditions = LinkConditions(
                loss=rng.choice([0.0, 0.1, 0.3]),
                repetition=rng.choice([0.0, 0.3]),
                reordering=rng.choice([0.0, 0.3]),
                jitter=rng.choice([0.0, 0.05, 0.5]),
            )
            self._nodes.network.set_conditions(conditions)
            self.story.add_fault("bad links", repr(conditions))
        for _ in range(rng.randrange(12)):
            await trio.sleep(rng.uniform(0.1, TROUBLE / 8))
            if trio.current_time() >= TROUBLE:
                return
            if rng.random() < 0.6:
                self._nodes.kill(rng.choice(NAMES), down=rng.choice([0.1, 3.0, 15.0, 40.0]))
            else:
                self._partition(one_way=rng.random() < 0.3)

    def _partition(self, *, one_way: bool) -> None:
        shuffled = [self._nodes.identities[name].peer_id for name in NAMES]
        self._rng.shuffle(shuffled)
        cut = self._rng.randrange(1, len(shuffled))
        self._nodes.network.partition(shuffled[:cut], shuffled[cut:], one_way=one_way)
        self.story.add_fault("partition", cut, one_way)

    def _heal(self) -> None:
        self._nodes.network.heal()
        self._nodes.network.set_conditions(LinkConditions())
        self.story.add("healed")

    # --- users --------------------------------------------------------------------------------------

    async def _submit(self, name: str, rng: Random) -> None:
        """Submit one job, again and again with its token until there is an answer."""
        await trio.sleep(rng.uniform(0.0, TROUBLE * 0.8))
        count = rng.choice([1, 1, 2, 3])
        spec = {
            "Name": name,
            "Count": count,
            "Priority": rng.randrange(3),
            "Verifier": {"Type": "deterministic" if count > 1 and rng.random() < 0.5 else "noop"},
            "Tasks": [
                {
                    "Engine": {"Type": "noop", "Params": {"Stdout": name}},
                    "Timeouts": {"ExecutionTimeout": 120, "QueueTimeout": 600, "TotalTimeout": 1800},
                }
            ],
        }
        while True:
            node = self._nodes.requester
            if node is not None:
                with trio.move_on_after(5.0):
                    handle = await node.submit(spec, idempotency_token=name)
                    known = self._submitted.setdefault(name, handle.id)
                    what = f"one token, two jobs: {known} and {handle.id}"
                    require(known == handle.id, "one token, one job", what)
                    self.story.add("submitted", name)
                    return
            await trio.sleep(1.0)
