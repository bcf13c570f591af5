"""Whole nodes in a flood, in memory, by counts: the short form of `scripts/bench flood`."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress

import pytest

from bacalhau_p2p.compute import transitions
from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.node import open_node
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports import budgets
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.support.peers import flooding_peer
from tests.support.peers.flooding_peer import FloodingPeer
from tests.support.waiting import until

NETWORK, JOB = "flooded", {"Tasks": [{"Engine": {"Type": "noop"}}]}
FLOOD = 400
LIMITS = {
    "MESSAGE_BURST": 150,
    "NEWCOMER_BURST": 100,
    "MALFORMED_BURST": 50,
    "MESSAGES_PER_SECOND": 20,
    "NEWCOMER_MESSAGES_PER_SECOND": 20,
}
"""Budgets as small as a test wants them: what matters is what happens beyond them."""
OVER_BUDGET = {
    "announcements": "over_budget_messages",
    "infos": "over_budget_messages",
    "bids": "over_budget_messages",
    "heartbeats": "over_budget_messages",
    "malformed": "malformed",
}


class Flooded:
    """A requester, a compute node, and a peer that floods both."""

    def __init__(self, requester, compute, flooder: FloodingPeer) -> None:
        self.requester, self.compute, self.flooder = requester, compute, flooder

    async def flood(self, kind: str) -> None:
        """Send messages to each node until it refuses more."""
        targets = self.flooder.targets
        for self.flooder.targets in [[target] for target in targets]:
            with suppress(PeerUnreachable):
                await flooding_peer.FLOODS[kind](self.flooder, FLOOD)
        self.flooder.targets = targets

    async def run_job(self) -> str:
        job = await self.requester.submit(JOB)
        return str((await job.wait(timeout=60)).state)

    def blamed(self, node) -> dict[str, int]:
        """What the node blames the flooder for; it is the only one that is blamed."""
        worst = node.transport.budgets.offences.worst()
        assert set(worst) <= {self.flooder.peer}
        return worst.get(self.flooder.peer, {})

    def is_cut_off(self, node) -> bool:
        return self.flooder.peer in node.transport.budgets.cut_off_for()


@asynccontextmanager
async def flooded(folder):
    network = MemoryNetwork()
    settings = {"network": NETWORK, "engines": ("noop",), "min_free_disk": "0"}
    async with (
        open_one(network, Settings(data_dir=folder / "r", compute=False, **settings)) as requester,
        open_one(network, Settings(data_dir=folder / "c", requester=False, **settings)) as compute,
        network.open(Identity.generate()) as transport,
    ):
        await requester.wait_for_compute_nodes(1)
        targets = [PeerID(node.transport.peer_id) for node in (requester, compute)]
        yield Flooded(requester, compute, FloodingPeer(transport, NETWORK, targets))


@asynccontextmanager
async def open_one(network, settings):
    identity = Identity.generate()
    async with (
        network.open(identity) as transport,
        open_node(settings, transport=transport, identity=identity) as node,
    ):
        yield node


@pytest.fixture
def small_budgets(monkeypatch):
    for name, value in LIMITS.items():
        monkeypatch.setattr(budgets, name, value)
    monkeypatch.setattr(flooding_peer, "BATCH", 50)


@pytest.mark.parametrize("kind", OVER_BUDGET)
async def test_a_flood_is_named_with_its_counts_and_cut_off_and_jobs_go_on(tmp_path, small_budgets, kind):
    async with flooded(tmp_path) as scene:
        await scene.flood(kind)
        assert await scene.run_job() == "Completed"
        for node in (scene.requester, scene.compute):
            assert scene.is_cut_off(node)
            assert scene.blamed(node)[OVER_BUDGET[kind]] > 0


@pytest.mark.parametrize("kind", ["bids", "heartbeats"])
async def test_a_flood_below_every_budget_is_named_with_its_count(tmp_path, kind):
    async with flooded(tmp_path) as scene:
        await flooding_peer.FLOODS[kind](scene.flooder, 100)
        assert await scene.run_job() == "Completed"
        assert scene.blamed(scene.requester) == {"unknown": 100}
        assert not scene.is_cut_off(scene.requester)


async def test_a_peer_that_is_cut_off_holds_no_room(tmp_path, small_budgets, monkeypatch):
    monkeypatch.setattr(transitions, "RESERVED_FOR", 60.0)  # longer than this test waits
    async with flooded(tmp_path) as scene:
        await flooding_peer.announcements(scene.flooder, 50)
        capacity = scene.compute._compute.machine.capacity
        await until(lambda: capacity.held_by(scene.flooder.peer)[0] > 0)
        await scene.flood("malformed")
        await until(lambda: scene.is_cut_off(scene.compute))
        await until(lambda: capacity.reserved == Resources())
