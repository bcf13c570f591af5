"""Networked jobs on a real engine: what the proxy lets through, and that nothing goes around it."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker import job_networks
from bacalhau_p2p.executors.docker.container_config import container_name, network_container_name
from bacalhau_p2p.executors.docker.executor import DockerExecutor
from bacalhau_p2p.executors.docker.job_networks import PROXY_PORT
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.layout import arrange
from bacalhau_p2p.model.job import NetworkSpec
from bacalhau_p2p.outbound.addresses import AddressGuard
from bacalhau_p2p.outbound.dialing import Dialer
from bacalhau_p2p.testing.executors import ExecutorKit
from tests.support.programs.shell_programs import ShellPrograms, shell
from tests.support.servers.docker_containers import containers_of
from tests.support.servers.public_web import PUBLIC, PublicWeb, public_web
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.docker

DOMAINS = ("allowed.test", "*.allowed.test", "private.test", "local.test", "metadata.test")


@asynccontextmanager
async def networked(node_id: str, folder: Path) -> AsyncIterator[tuple[ExecutorKit, PublicWeb]]:
    """An executor whose networked jobs reach the servers of a test."""
    async with public_web() as web:
        executor = DockerExecutor(node_id, dialer=web.dialer())
        if problem := executor.network_problem("HTTP"):
            pytest.skip(problem)
        try:
            yield ExecutorKit(executor=executor, programs=ShellPrograms(), folder=folder), web
        finally:
            await executor.aclose()


def request_for(kit: ExecutorKit, script: str, **parameters: object) -> RunRequest:
    network = NetworkSpec(type="HTTP", domains=DOMAINS)
    return replace(kit.request(shell(script, **parameters)), network=network, **{"timeout": 120})


async def test_a_job_reaches_the_domains_that_it_names_and_no_others(node_id, tmp_path, docker_client):
    script = f"""
        get() {{ wget -q -O - "$1" 2>/dev/null || echo "no $1"; }}
        get http://allowed.test/one
        get http://www.allowed.test/two
        get http://other.test/
        get http://{PUBLIC}/
        get http://private.test/
        get http://metadata.test/latest/meta-data
        get http://allowed.test/moved/www.allowed.test
        get http://allowed.test/moved/private.test
        get http://allowed.test/moved/127.0.0.1
        get http://allowed.test:8080/
        exit 1
    """
    async with networked(node_id, tmp_path) as (kit, web):
        request = request_for(kit, script)
        output = await kit.run(request)
        assert output.stdout.decode().splitlines() == [
            "this is /one",
            "this is /two",
            "no http://other.test/",
            f"no http://{PUBLIC}/",
            "no http://private.test/",
            "no http://metadata.test/latest/meta-data",
            "this is /",
            "no http://allowed.test/moved/private.test",
            "no http://allowed.test/moved/127.0.0.1",
            "no http://allowed.test:8080/",
        ]
        assert {address for address, _ in web.dialled} == {PUBLIC}
        refused = "other.test (1), 93.184.216.34 (1), private.test (2), metadata.test (1), 127.0.0.1 (1)"
        assert f"hint: the network proxy of the job refused: {refused}" in output.stderr.decode()
        assert request.meter.network_bytes_received
        assert request.meter.network_bytes_sent == sum(map(len, web.requests))
        eventually(lambda: containers_of(docker_client, node_id) == [])


async def test_a_job_opens_a_tunnel_to_port_443_of_its_domains_only(node_id, tmp_path):
    script = f"""
        ask() {{ printf 'CONNECT %s HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' "$1"; }}
        tunnel() {{ ask "$1" | nc -w 5 127.0.0.1 {PROXY_PORT} | head -n 1; }}
        echo hello > /tmp/hello
        {{ ask allowed.test:443; cat /tmp/hello; }} | nc 127.0.0.1 {PROXY_PORT}
        tunnel allowed.test:22; tunnel other.test:443; tunnel private.test:443; tunnel 10.0.0.5:443
        tunnel [::1]:443; tunnel local.test:443
    """
    async with networked(node_id, tmp_path) as (kit, web):
        output = await kit.run(request_for(kit, script))
        lines = output.stdout.decode().replace("\r", "").splitlines()
        assert lines[:4] == ["HTTP/1.1 200 Connection established", "", "echo", "hello"]
        assert [line.split(" ")[1] for line in lines[4:]] == ["403"] * 6
        assert web.dialled == [(PUBLIC, 443)]


async def test_nothing_goes_around_the_proxy(node_id, tmp_path, docker_client):
    """With sockets of its own to services on every address of this machine, which a container on a bridge
    reaches, and to others."""
    listeners = await trio.open_tcp_listeners(0, host="0.0.0.0")
    service = listeners[0].socket.getsockname()[1]
    gateways = {
        config["Gateway"]
        for network in docker_client.networks.list()
        for config in (network.attrs["IPAM"]["Config"] or [])
        if "Gateway" in config
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing, and tells the address of this machine
        own = probe.getsockname()[0]
    script = f"""
        ls /sys/class/net
        ip route | wc -l
        grep -v ^search /etc/resolv.conf
        try() {{ nc -w 3 "$1" "$2" </dev/null >/dev/null 2>&1 && echo "reached $1 $2"; }}
        for host in {own} {" ".join(sorted(gateways))} 127.0.0.1 169.254.169.254 10.0.0.1 {PUBLIC}; do
            try $host {service}; try $host 80; try $host 443; try $host 53
        done
        try ::1 {service}; try fe80::1 {service}
        nslookup allowed.test 8.8.8.8 >/dev/null 2>&1 && echo resolved
        nslookup allowed.test {own} >/dev/null 2>&1 && echo resolved
        wget -q -O - --no-proxy http://{own}:{service}/ 2>/dev/null && echo fetched
        (unset http_proxy HTTP_PROXY; wget -q -O - http://allowed.test/) 2>/dev/null && echo fetched
        ip addr add 10.9.8.7/24 dev lo 2>/dev/null && echo changed
        ping -c 1 -W 1 {own} >/dev/null 2>&1 && echo pinged
        echo end
    """
    accepted: list[trio.SocketStream] = []

    async def serve() -> None:
        while True:
            accepted.append(await listeners[0].accept())

    async with networked(node_id, tmp_path) as (kit, web), trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        output = await kit.run(request_for(kit, script))
        assert output.stdout.decode().splitlines() == ["lo", "0", "nameserver 127.0.0.1", "end"]
        assert (accepted, web.dialled) == ([], [])
        nursery.cancel_scope.cancel()


async def test_a_job_is_told_of_its_proxy_whatever_it_says_itself(node_id, tmp_path):
    async with networked(node_id, tmp_path) as (kit, _):
        own = {"HTTP_PROXY": "http://elsewhere:1", "KEPT": "yes"}
        output = await kit.run(request_for(kit, "env | grep -E 'PROXY|proxy|KEPT' | sort", environment=own))
        proxy = f"http://127.0.0.1:{PROXY_PORT}"
        assert output.stdout.decode().splitlines() == [
            f"HTTPS_PROXY={proxy}",
            f"HTTP_PROXY={proxy}",
            "KEPT=yes",
            "NO_PROXY=localhost,127.0.0.1,::1",
            f"http_proxy={proxy}",
            f"https_proxy={proxy}",
            "no_proxy=localhost,127.0.0.1,::1",
        ]


async def test_a_job_without_the_network_reaches_no_proxy_and_jobs_do_not_reach_each_others(kit):
    output = await kit.run(kit.request(shell(f"nc -w 3 127.0.0.1 {PROXY_PORT} </dev/null || echo alone")))
    assert output.stdout == b"alone\n"


async def test_both_containers_are_gone_when_a_job_is_cancelled(node_id, tmp_path, docker_client):
    async with networked(node_id, tmp_path) as (kit, web), trio.open_nursery() as nursery:
        script = "wget -q -O - http://allowed.test/; sleep 3600"
        nursery.start_soon(kit.run, request_for(kit, script))
        await until(lambda: web.requests, 60)
        assert len(containers_of(docker_client, node_id)) == 2
        nursery.cancel_scope.cancel()
    assert containers_of(docker_client, node_id) == []


async def test_a_node_that_starts_again_serves_the_network_of_its_running_job(
    node_id, tmp_path, docker_client
):
    """The first one is left as a killed node leaves it: its sockets are closed, its containers run on."""
    async with networked(node_id, tmp_path) as (kit, web):
        gate = kit.input_folder("/gate", {})
        script = """
            wget -q -O - http://allowed.test/one; wget -q -O /dev/null http://allowed.test/
            while [ ! -e /gate/open ]; do sleep 0.05; done
            until wget -q -O - http://allowed.test/two 2>/dev/null; do sleep 0.05; done
        """
        request = replace(request_for(kit, script), inputs=[gate])
        await kit.executor.prepare(request)
        await start_as_a_node_that_is_killed(kit.executor, request, web)
        assert len(containers_of(docker_client, node_id)) == 2
        second = DockerExecutor(node_id, dialer=web.dialer())
        await second.sweep({request.execution_id})
        outputs = []

        async def reattach() -> None:
            outputs.append(await second.reattach(request))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reattach)
            (gate.path / "open").touch()
        assert outputs[0].stdout == b"this is /one\nthis is /two\n"
        assert request.meter.network_bytes_received
        assert containers_of(docker_client, node_id) == []
        await second.aclose()


async def start_as_a_node_that_is_killed(executor, request, web) -> None:
    """Start the job, wait for its first request, and leave its containers."""
    client = await executor._engine.client()
    removed: list[str] = []

    async def keep(name: str) -> None:
        removed.append(name)

    remove, executor._containers.remove = executor._containers.remove, keep
    try:
        async with executor._networks.opened(client, request, "busybox:latest") as network:
            params = executor._usable_params(request)
            user = await executor._users.user_of(params.image)
            layout = arrange(request.inputs, {})
            config = executor._config(client, request, params, layout, user, network=network)
            await trio.to_thread.run_sync(lambda: client.create_container(**config))
            await trio.to_thread.run_sync(client.start, container_name(request.execution_id))
            await until(lambda: len(web.requests) == 2, 60)  # so the answer to the first is in its log
    finally:
        executor._containers.remove = remove
    assert removed == [network_container_name(request.execution_id)]


async def test_a_node_that_may_not_enter_namespaces_does_not_offer_the_network(
    node_id, tmp_path, monkeypatch
):
    monkeypatch.setattr(job_networks, "may_enter_namespaces", lambda: False)
    executor = DockerExecutor(node_id, dialer=Dialer(AddressGuard()))
    assert "CAP_SYS_ADMIN" in (executor.network_problem("HTTP") or "")
    assert executor.network_problem("Full") is None
    kit = ExecutorKit(executor=executor, programs=ShellPrograms(), folder=tmp_path)
    with pytest.raises(ExecutorError, match="network type HTTP: only a node with CAP_SYS_ADMIN"):
        await kit.run(request_for(kit, "true"))
    await executor.aclose()


def test_the_container_that_holds_the_network_may_do_nothing(docker_client):
    config = job_networks._pause_config(docker_client.api, "x", "busybox:latest", "/program", {"a": "b"})
    host = config["host_config"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
    assert json.dumps(host["Dns"]) == '["127.0.0.1"]'
