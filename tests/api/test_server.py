"""The HTTP server of a node: it listens for the length of a block and does not wait for long polls."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
import trio

from bacalhau_p2p.api import server
from bacalhau_p2p.api.server import serve_api
from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.node import Node
from bacalhau_p2p.runtime import token_guesses
from bacalhau_p2p.testing.network import open_network
from tests.support.waiting import until

JOBS = "/api/v1/orchestrator/jobs"
NOOP = {"Job": {"Tasks": [{"Engine": {"Type": "noop"}}]}}


@pytest.fixture
async def node(tmp_path) -> AsyncIterator[Node]:
    async with open_network(tmp_path, compute_nodes=0, api_port=0) as network:
        yield network.requester


async def test_the_api_listens_for_the_length_of_the_block(node):
    async with serve_api(node) as url, httpx.AsyncClient(base_url=url) as http:
        assert node.api_url == url
        assert (await http.get("/api/v1/agent/alive")).status_code == 200
    assert node.api_url == ""
    with pytest.raises(OSError, match="attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))


async def test_a_port_that_is_in_use_is_an_error_with_its_address(node):
    async with serve_api(node) as url:
        port = int(url.rpartition(":")[2])
        node.settings = node.settings.model_copy(update={"api_port": port})
        with pytest.raises(SettingsError, match=f"API address 127.0.0.1:{port}: already in use"):
            async with serve_api(node):
                pass


async def test_an_error_in_the_block_comes_out_as_it_was_raised(node):
    with pytest.raises(ZeroDivisionError):
        async with serve_api(node):
            raise ZeroDivisionError


async def test_a_server_that_ends_by_itself_is_an_error(node, monkeypatch):
    async def end_at_once(*args: object) -> None:
        pass

    monkeypatch.setattr(server.ConnectionServer, "run", end_at_once)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="ended by itself")):
        async with serve_api(node):
            await trio.sleep_forever()


async def test_a_server_that_stops_cuts_off_requests_that_wait_for_a_job(node, monkeypatch):
    monkeypatch.setattr(server, "SHUTDOWN_GRACE", 0.01)
    waiting = trio.Event()
    wait = node.requester.wait

    async def announced_wait(job_id, timeout):
        waiting.set()
        return await wait(job_id, timeout)

    node.requester.wait = announced_wait
    with trio.fail_after(30):
        async with (
            httpx.AsyncClient() as http,
            trio.open_nursery() as nursery,
            serve_api(node) as url,
        ):
            job_id = (await http.put(url + JOBS, json=NOOP)).json()["JobID"]

            async def long_poll() -> None:
                with pytest.raises(httpx.RemoteProtocolError):
                    await http.get(f"{url}{JOBS}/{job_id}?wait=300", timeout=None)

            nursery.start_soon(long_poll)
            await waiting.wait()


async def test_who_guesses_the_token_is_named_in_the_log_and_counted(node, monkeypatch, caplog):
    monkeypatch.setattr(token_guesses, "REPORT_INTERVAL", 0.01)
    caplog.set_level(logging.WARNING)
    node.settings = node.settings.model_copy(update={"api_token": "secret"})
    async with serve_api(node) as url, httpx.AsyncClient(base_url=url) as http:
        wrong, right = ({"Authorization": f"Bearer {token}"} for token in ("wrong", "secret"))
        assert (await http.get(JOBS, headers=wrong)).status_code == 401
        await until(lambda: "wrong_api_token" in caplog.text)
        assert "address='127.0.0.1' wrong=1" in caplog.text
        metrics = (await http.get("/metrics", headers=right)).text
        assert 'bacalhau_p2p_faults_total{kind="wrong_tokens"} 1.0' in metrics
