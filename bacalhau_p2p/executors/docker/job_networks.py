"""The network of a job: none, the engine's, or HTTP to the domains that it names.

For HTTP, a container that only waits holds a network namespace in which there is nothing but loopback. There
the proxy of the job listens, and then the job's own container joins it. So there is no way out but the proxy,
and no rule of a firewall that could be missing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.container_config import (
    MINIMUM_MEMORY,
    container_name,
    network_container_name,
    owner_labels,
)
from bacalhau_p2p.executors.docker.containers import Containers
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.docker.network_namespaces import listen_in, may_enter_namespaces
from bacalhau_p2p.executors.docker.ownership import NOBODY
from bacalhau_p2p.executors.docker.pause_program import pause_program
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.results import ResultsFolder, write_failed
from bacalhau_p2p.outbound.dialing import Dialer
from bacalhau_p2p.outbound.proxy.connections import SharedConnections
from bacalhau_p2p.outbound.proxy.server import HttpProxy
from bacalhau_p2p.outbound.proxy.traffic import Traffic
from bacalhau_p2p.runtime.tasks import background

if TYPE_CHECKING:
    from docker import APIClient

PROXY_PORT = 3128
"""Where the proxy listens, on 127.0.0.1 of the job."""
PAUSE_PROCESSES = 16
"""Processes and threads of the container that waits: the engine's own, before its program starts."""
_PAUSE_TARGET = "/.bacalhau-pause"
_URL = f"http://127.0.0.1:{PROXY_PORT}"
_LOCAL = "localhost,127.0.0.1,::1"
PROXY_ENVIRONMENT: Mapping[str, str] = {
    name: value
    for upper, value in (("HTTP_PROXY", _URL), ("HTTPS_PROXY", _URL), ("NO_PROXY", _LOCAL))
    for name in (upper, upper.lower())
}
"""What tells a job's programs to use the proxy. It overrides what the job says: there is no other way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobNetwork:
    """The network that a job's container joins."""

    mode: str = "none"
    """As the engine names it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    traffic: Traffic | None = None
    """What its proxy has carried, if it has one."""

    def explain(self, results: ResultsFolder) -> None:
        """Say which hosts the proxy refused, at the end of stderr. Blocks."""
        if self.traffic is not None and self.traffic.refused:
            hosts = ", ".join(f"{host} ({count})" for host, count in self.traffic.refused.items())
            text = f"\nhint: the network proxy of the job refused: {hosts}; see Network.Domains\n"
            results.stderr.write(text.encode("utf-8", "replace"))


NO_NETWORK = JobNetwork()


class JobNetworks:
    """Opens the networks of jobs on one node."""

    def __init__(
        self, engine: DockerEngine, containers: Containers, *, node_id: str, full_network: str, dialer: Dialer
    ) -> None:
        """`full_network` is the engine's network for jobs that ask for `Full`; `dialer` connects the proxies
        of those that ask for `HTTP`."""
        self._engine = engine
        self._containers = containers
        self._node_id = node_id
        self._full_network = full_network
        self._dialer = dialer
        self._shared = SharedConnections()

    def problem(self, network: str) -> str | None:
        """Why this node cannot give a job the network type, or None."""
        if network != "HTTP":
            return None
        if not may_enter_namespaces():
            return "only a node with CAP_SYS_ADMIN, as root has it, can open the proxy of a job"
        if not os.environ.get("DOCKER_HOST", "unix://").startswith("unix://"):
            return "the Docker engine is not on this machine"
        return (
            None if pause_program() else "there is no program to hold the network on this kind of processor"
        )

    @asynccontextmanager
    async def opened(self, client: APIClient, request: RunRequest, image: str) -> AsyncIterator[JobNetwork]:
        """The network for a new container of a job; for the length of the block. Raises ExecutorError."""
        if request.network.type == "None":
            yield NO_NETWORK
        elif request.network.type == "Full":
            yield JobNetwork(mode=self._full_network)
        elif problem := self.problem(request.network.type):
            raise ExecutorError(f"network type {request.network.type}: {problem}")
        else:
            name = network_container_name(request.execution_id)
            try:
                listener = await self._engine.call(self._hold, client, request, image)
                async with self._served(request, listener) as network:
                    yield network
            finally:
                await self._containers.remove(name)

    @asynccontextmanager
    async def reopened(self, client: APIClient, request: RunRequest) -> AsyncIterator[JobNetwork]:
        """The same for a container of an earlier process, which has a network, but nobody serves it. Raises
        ExecutorError."""
        if request.network.type != "HTTP":
            yield NO_NETWORK
            return
        try:
            name = container_name(request.execution_id)
            listener = await self._engine.call(_listen_again, client, name)
            if listener is None:
                yield NO_NETWORK
                return
            async with self._served(request, listener) as network:
                yield network
        finally:
            await self._containers.remove(network_container_name(request.execution_id))

    @asynccontextmanager
    async def _served(self, request: RunRequest, listener: socket.socket) -> AsyncIterator[JobNetwork]:
        traffic = Traffic()
        proxy = HttpProxy(request.network.domains, self._dialer, self._shared, traffic=traffic)
        listener.setblocking(False)
        async with background() as nursery:
            nursery.start_soon(proxy.serve, trio.SocketListener(trio.socket.from_stdlib_socket(listener)))
            network = JobNetwork(
                mode=f"container:{network_container_name(request.execution_id)}",
                environment=PROXY_ENVIRONMENT,
                traffic=traffic,
            )
            try:
                yield network
            finally:
                request.meter.network_bytes_received = traffic.received
                request.meter.network_bytes_sent = traffic.sent

    def _hold(self, client: APIClient, request: RunRequest, image: str) -> socket.socket:
        """Start a container that holds a network, and listen in it. Blocks."""
        program = request.work / "pause"
        try:
            request.work.mkdir(exist_ok=True)
            program.write_bytes(pause_program() or b"")
            program.chmod(0o755)
        except OSError as error:
            raise write_failed(error) from error
        name = network_container_name(request.execution_id)
        labels = owner_labels(request, self._node_id)
        client.create_container(**_pause_config(client, name, image, str(program.absolute()), labels))
        client.start(name)
        listener = _listen(client.inspect_container(name))
        if listener is None:
            raise ExecutorError("the container that holds the network of the job has ended")
        return listener


def _pause_config(
    client: APIClient, name: str, image: str, program: str, labels: Mapping[str, str]
) -> dict[str, Any]:
    from docker.types import LogConfig, Mount

    return {
        "image": image,
        "name": name,
        "entrypoint": [_PAUSE_TARGET],
        "user": f"{NOBODY}:{NOBODY}",
        "labels": dict(labels),
        "healthcheck": {"test": ["NONE"]},
        "host_config": client.create_host_config(
            network_mode="none",
            # The job sees these; without them it would be told the name servers of this machine.
            dns=["127.0.0.1"],
            dns_search=["."],
            mounts=[Mount(_PAUSE_TARGET, program, type="bind", read_only=True)],
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=PAUSE_PROCESSES,
            mem_limit=MINIMUM_MEMORY,
            memswap_limit=MINIMUM_MEMORY,
            log_config=LogConfig(type="none"),
        ),
    }


def _listen_again(client: APIClient, name: str) -> socket.socket | None:
    """Listen in the network of a container that runs already; None when it has ended. Blocks."""
    try:
        return _listen(client.inspect_container(name))
    except ExecutorError:
        if not client.inspect_container(name)["State"]["Running"]:
            return None
        raise


def _listen(container: Mapping[str, Any]) -> socket.socket | None:
    if not container["State"]["Running"]:
        return None
    return listen_in(container["State"]["Pid"], container["Id"], PROXY_PORT)
