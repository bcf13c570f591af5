"""`/api/v1/agent` of a real node."""

from __future__ import annotations

import httpx
from httpx import ASGITransport

from bacalhau_p2p.api.app import create_app
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.testing.network import open_network


async def test_a_node_describes_itself_its_peers_and_its_version(tmp_path):
    async with open_network(tmp_path, compute_nodes=1, api_port=0) as network:
        transport = ASGITransport(create_app(network.requester))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1234") as http:
            node = (await http.get("/api/v1/agent/node")).json()
            assert (node["NodeID"], node["NodeType"], node["Requester"]) == (
                network.requester.peer_id,
                "Requester",
                True,
            )
            assert node["ConnectedPeers"] == [network.compute[0].peer_id]
            version = (await http.get("/api/v1/agent/version")).json()
            assert version["GitVersion"].startswith("v")
            assert (await http.get("/api/v1/agent/alive")).json() == {"Status": "OK"}


async def test_a_node_shows_what_it_has_survived_and_ignored(tmp_path):
    async with open_network(tmp_path, compute_nodes=1, api_port=0) as network:
        for node, component, ignored in (
            (network.requester, "Requester", network.requester.requester.ignored),
            (network.compute[0], "Compute", network.compute[0].ignored_events["Compute"]),
        ):
            ignored["Bid for a known execution"] += 2
            node.dropped_events[component]["Bid", "peer"] += 4
            node.messenger.counters["malformed"] += 3
            transport = ASGITransport(create_app(node))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1234") as http:
                shown = (await http.get("/api/v1/agent/node")).json()
            assert list(shown["IgnoredEvents"]) == [component]
            assert shown["IgnoredEvents"][component]["Bid for a known execution"] == 2
            assert shown["DroppedEvents"] == {component: [{"Event": "Bid", "Author": "peer", "Count": 4}]}
            assert shown["Counters"]["malformed"] == 3


async def test_a_node_shows_what_keeps_its_runs_from_the_machine(tmp_path):
    class Walled(NoopExecutor):
        walls = ("seccomp",)

    async with open_network(tmp_path, compute_nodes=1, api_port=0, executors={0: [Walled()]}) as network:
        job = await network.requester.submit({"Tasks": [{"Engine": {"Type": "noop"}}]})
        await job.wait_result()
        shown = {}
        for node in (network.requester, network.compute[0]):
            transport = ASGITransport(create_app(node))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1234") as http:
                shown[node.peer_id] = (await http.get("/api/v1/agent/node")).json()["Walls"]
                if node is network.requester:
                    url = f"/api/v1/orchestrator/jobs/{job.id}?include=executions"
                    (execution,) = (await http.get(url)).json()["Executions"]["Items"]
        assert shown == {network.requester.peer_id: {}, network.compute[0].peer_id: {"noop": ["seccomp"]}}
        assert execution["Walls"] == ["seccomp"]
