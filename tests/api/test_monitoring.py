"""`/metrics` and `/api/v1/healthz` of real nodes."""

from __future__ import annotations

import httpx
from httpx import ASGITransport
from prometheus_client.parser import text_string_to_metric_families

from bacalhau_p2p.api.app import create_app
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.testing.network import open_network


class Stopped(NoopExecutor):
    async def unavailable(self):
        return "the engine does not run"


def client_of(node, **headers):
    return httpx.AsyncClient(
        transport=ASGITransport(create_app(node)), base_url="http://127.0.0.1:1234", headers=headers
    )


async def test_prometheus_can_read_the_metrics(tmp_path):
    async with open_network(tmp_path, compute_nodes=1) as network, client_of(network.requester) as http:
        response = await http.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        names = {family.name for family in text_string_to_metric_families(response.text)}
        assert {"bacalhau_p2p_jobs_submitted", "process_cpu_seconds"} <= names


async def test_metrics_need_the_token_if_there_is_one(tmp_path):
    async with open_network(tmp_path, compute_nodes=0, api_token="secret") as network:
        async with client_of(network.requester) as http:
            assert (await http.get("/metrics")).status_code == 401
        async with client_of(network.requester, authorization="Bearer secret") as http:
            assert (await http.get("/metrics")).status_code == 200


async def test_a_node_that_works_is_healthy(tmp_path):
    async with open_network(tmp_path, compute_nodes=1) as network:
        for node in (network.requester, network.compute[0]):
            async with client_of(node) as http:
                response = await http.get("/api/v1/healthz")
            assert (response.status_code, response.json()) == (200, {"Status": "OK", "Problems": []})


async def test_a_node_without_the_engine_that_it_was_told_to_offer_says_so(tmp_path):
    async with (
        open_network(tmp_path, compute_nodes=1, executors={0: [Stopped()]}) as network,
        client_of(network.compute[0]) as http,
    ):
        response = await http.get("/api/v1/healthz")
        assert response.status_code == 503
        assert response.json() == {
            "Status": "Unavailable",
            "Problems": ["engine noop: the engine does not run"],
        }


async def test_a_requester_with_a_full_disk_says_so(tmp_path):
    async with (
        open_network(tmp_path, compute_nodes=0, min_free_disk="1EB") as network,
        client_of(network.requester) as http,
    ):
        response = await http.get("/api/v1/healthz")
        assert response.status_code == 503
        assert response.json()["Problems"] == [
            "requester: it has almost no free disk: less than min_free_disk, which is 1EB"
        ]
