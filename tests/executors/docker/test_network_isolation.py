"""Nothing goes around the proxy of a networked job, as packets that rules of the test's own count.

An internet and the node are machines in network namespaces that the test makes. The job's network is the one
that `job_networks` and `network_namespaces` give it; before its program begins, the test puts rules there.
"""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import docker
import pytest
import trio

from bacalhau_p2p.executors.docker.container_config import network_container_name
from bacalhau_p2p.executors.docker.executor import DockerExecutor
from bacalhau_p2p.executors.docker.job_networks import PROXY_PORT
from bacalhau_p2p.executors.interface import MountedInput, RunRequest
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import NetworkSpec, ResultPath
from bacalhau_p2p.testing.executors import ExecutorKit
from tests.support.networks.local_network import Machine, local_network
from tests.support.programs.shell_programs import ShellPrograms, shell
from tests.support.servers.public_web import PUBLIC, PublicWeb
from tests.support.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.network]

OTHER, PRIVATE, METADATA = "93.184.216.35", "10.0.0.5", "169.254.169.254"
PUBLIC6 = "2606:2800:220:1::34"
DOMAINS = ("allowed.test", "private.test", "metadata.test")
TLS = "allowed.test"
"""The name in the certificate of the servers."""
PROTOCOLS = ("tcp", "udp", "icmp", "ipv6-icmp")
NOTHING = dict.fromkeys((*PROTOCOLS, "others"), 0)


@dataclass(slots=True)
class Internet(PublicWeb):
    """Servers with public and private addresses, each for HTTP and HTTPS, on a machine of its own; `node` is
    the machine from which a proxy reaches them."""

    machine: Machine = field(kw_only=True)
    node: Machine = field(kw_only=True)

    async def _open(self, address: str, port: int) -> trio.SocketStream:
        self.dialled.append((address, port))
        sock = trio.socket.from_stdlib_socket(self.node.call(socket.socket))
        await sock.connect((address, port))
        return trio.SocketStream(sock)


@asynccontextmanager
async def internet(certificate: Path) -> AsyncIterator[Internet]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with local_network(2) as (machine, node):
        web = Internet(machine=machine, node=node)
        for address in (PUBLIC, OTHER, PRIVATE, METADATA):
            machine.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        machine.run("ip", "address", "add", f"{PUBLIC6}/128", "dev", "lo")
        node.run("ip", "route", "add", "default", "via", machine.ip)

        async def secured(stream: trio.SocketStream) -> None:
            await web.answer(trio.SSLStream(stream, context, server_side=True))  # type: ignore[arg-type]

        async with trio.open_nursery() as nursery:
            for port, handler in ((80, web.answer), (443, secured)):
                nursery.start_soon(serve, machine.call(lambda port=port: listener(port)), handler)
            yield web
            nursery.cancel_scope.cancel()


def listener(port: int) -> socket.socket:
    return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)


async def serve(sock: socket.socket, handler: Callable) -> None:  # type: ignore[type-arg]
    async def handle(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, OSError):
            await handler(stream)

    sock.setblocking(False)
    await trio.serve_listeners(handle, [trio.SocketListener(trio.socket.from_stdlib_socket(sock))])


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """For TLS, of nobody but this test."""
    path = tmp_path / "tls.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-out", str(path), "-keyout", str(path.with_suffix(".key"))]
    command += ["-subj", f"/CN={TLS}", "-addext", f"subjectAltName=DNS:{TLS}"]
    subprocess.run(command, check=True, capture_output=True)
    return path


def tools(folder: Path, certificate: Path) -> MountedInput:
    """A client for TLS that runs in any image: `openssl` with its libraries, and the certificate to trust."""
    folder.mkdir()
    program = shutil.which("openssl")
    assert program is not None
    loaded = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", loaded)
    for file in (program, *libraries, str(certificate)):
        shutil.copy(file, folder)
        (folder / Path(file).name).chmod(0o755)
    (loader,) = (Path(file) for file in libraries if Path(file).name.startswith("ld-"))
    (folder / loader.name).rename(folder / "loader")
    return MountedInput(path=folder, target="/tools")


SCRIPT = f"""
    get() {{ wget -q -O - "$1" 2>/dev/null || echo "no $1"; }}
    tls() {{
        printf 'GET /secret HTTP/1.1\\r\\nHost: {TLS}\\r\\n\\r\\n' |
            /tools/loader --library-path /tools /tools/openssl s_client -quiet \\
                -proxy 127.0.0.1:{PROXY_PORT} -connect "$1:443" -servername {TLS} \\
                -verify_hostname {TLS} -verify_return_error -CAfile /tools/tls.pem \\
                2>/dev/null | tr -d '\\r' | grep '^this is' || echo "no TLS $1"
    }}
    around() {{
        for host in "$@"; do
            for port in 22 53 80 443 8080 $SERVICE; do
                nc -w 30 $host $port </dev/null >/dev/null 2>&1 && echo "reached $host $port"
            done
            nslookup {TLS} $host >/dev/null 2>&1 && echo "resolved $host"
            ping -c 1 -W 1 $host >/dev/null 2>&1
        done
        (unset http_proxy HTTP_PROXY; for host in $1 {TLS}; do
            wget -q -O - http://$host/ >/dev/null 2>&1 && echo "fetched $host"
        done)
    }}
    wait_for() {{ touch /outputs/$1; until [ -e /gate/$1 ]; do sleep 0.05; done; }}
    wait_for rules
    get http://allowed.test/one; get http://other.test/; get http://{PUBLIC}/; get http://private.test/
    get http://metadata.test/; get http://allowed.test/moved/allowed.test
    get http://allowed.test/moved/other.test; get http://allowed.test/moved/private.test
    get http://allowed.test:8080/
    tls allowed.test; tls other.test; tls {PUBLIC}; tls private.test
    echo around
    around $EVERYWHERE
    wait_for way
    echo control
    around $INTERNET
    wait_for end
    exit 3  # so that stderr says what the proxy refused
"""


@dataclass(slots=True)
class Running:
    """A networked job, and its network, which the test changes while the program waits."""

    kit: ExecutorKit
    request: RunRequest
    gate: Path
    client: docker.DockerClient

    async def reaches(self, step: str) -> None:
        """Wait until the program waits for this step."""
        path = self.request.results / "outputs" / step
        await trio.to_thread.run_sync(eventually, path.exists, 300)

    def open(self, step: str) -> None:
        (self.gate / step).touch()

    @property
    def pid(self) -> int:
        """Of the process that holds its network."""
        name = network_container_name(self.request.execution_id)
        return int(self.client.containers.get(name).attrs["State"]["Pid"])

    @property
    def network(self) -> Machine:
        return Machine(("nsenter", "-t", f"{self.pid}", "-n", "--"), "", "", self.pid)


TO_PROXY = ("-o", "lo", "-p", "tcp", "-d", "127.0.0.1", "--dport", f"{PROXY_PORT}")
FROM_PROXY = ("-o", "lo", "-p", "tcp", "-s", "127.0.0.1", "--sport", f"{PROXY_PORT}")
INSIDE = ("-o", "lo")
TO_DOMAIN = ("-p", "tcp", "-d", PUBLIC, "-m", "multiport", "--dports", "80,443")


def count_packets(machine: Machine, *expected: Sequence[str]) -> None:
    """Rules that let everything through, and count what is sent: what is expected, and what else, by kind."""
    for tables, first in (("iptables", expected), ("ip6tables", ())):
        kinds = [("-p", protocol) for protocol in PROTOCOLS]
        for rule in (*first, *kinds, ()):
            machine.run(tables, "-w", "-A", "OUTPUT", *rule, "-j", "ACCEPT")


def packets(machine: Machine, tables: str = "iptables") -> dict[str, int]:
    """What `count_packets` counted, but what was expected."""
    listed = machine.run(tables, "-w", "-L", "OUTPUT", "-v", "-n", "-x").splitlines()[2:]
    counts = [int(line.split()[0]) for line in listed]
    kinds = [*PROTOCOLS, "others"]
    return dict(zip(kinds, counts[-len(kinds) :], strict=True))


def open_a_way(job: Machine, web: Internet) -> None:
    """Connect the job's network with the internet, as a network of the engine would."""
    web.machine.run("ip", "link", "add", "way", "type", "veth", "peer", "name", "out", "netns", f"{job.pid}")
    job.run("sh", "-c", "for each in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 0 >$each; done")
    for machine, link, number in ((web.machine, "way", 1), (job, "out", 2)):
        machine.run("ip", "address", "add", f"198.51.100.{number}/24", "dev", link)
        machine.run("ip", "address", "add", f"2001:db8::{number}/64", "dev", link, "nodad")
        machine.run("ip", "link", "set", link, "up")
    job.run("ip", "route", "add", "default", "via", "198.51.100.1")
    job.run("ip", "-6", "route", "add", "default", "via", "2001:db8::1")


def addresses_of_this_machine(client: docker.DockerClient) -> list[str]:
    """Those of its interfaces, and the gateways of the engine's networks."""
    listed = subprocess.run(["ip", "-o", "address"], check=True, capture_output=True, text=True).stdout
    own = re.findall(r"inet6? ([0-9a-f.:]+)/\d+ .*scope global", listed)
    gateways = [
        config["Gateway"]
        for network in client.networks.list()
        for config in (network.attrs["IPAM"]["Config"] or [])
        if "Gateway" in config
    ]
    return sorted({*own, *gateways})


@pytest.fixture
def service() -> Iterator[int]:
    """A port of this machine at which something listens, on all addresses."""
    with listener(0) as sock:
        yield sock.getsockname()[1]


async def test_not_one_packet_goes_around_the_proxy(
    node_id: str, tmp_path: Path, docker_client: docker.DockerClient, certificate: Path, service: int
) -> None:
    for program in ("iptables", "ip6tables", "ip", "openssl", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    own = addresses_of_this_machine(docker_client)
    everywhere = [PUBLIC, OTHER, PRIVATE, METADATA, "8.8.8.8", "172.17.0.1", "10.77.0.2", *own]
    everywhere += [PUBLIC6, "fe80::1", "2001:4860:4860::8888", "255.255.255.255", "224.0.0.251"]
    async with internet(certificate) as web:
        executor = DockerExecutor(node_id, dialer=web.dialer())
        if problem := executor.network_problem("HTTP"):
            pytest.skip(problem)
        kit = ExecutorKit(executor=executor, programs=ShellPrograms(), folder=tmp_path)
        gate = kit.input_folder("/gate", {})
        environment = {
            "EVERYWHERE": " ".join(everywhere),
            "INTERNET": f"{PUBLIC} {METADATA} {PUBLIC6}",
            "SERVICE": f"{service}",
        }
        request = replace(
            kit.request(shell(SCRIPT, environment=environment)),
            inputs=[gate, tools(tmp_path / "tools", certificate)],
            result_paths=[ResultPath(name="outputs", path="/outputs")],
            network=NetworkSpec(type="HTTP", domains=DOMAINS),
            timeout=500,
        )
        job = Running(kit, request, gate.path, docker_client)
        outputs: list[RunOutput] = []

        async def run() -> None:
            outputs.append(await kit.run(request))

        count_packets(web.node, TO_DOMAIN)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await job.reaches("rules")
                network = job.network
                count_packets(network, TO_PROXY, FROM_PROXY, INSIDE)
                job.open("rules")
                await job.reaches("way")
                assert (packets(network), packets(network, "ip6tables")) == (NOTHING, NOTHING)
                by_node6 = packets(web.node, "ip6tables")
                # The node's kernel looks for routers.
                assert (packets(web.node), by_node6 | {"ipv6-icmp": 0}) == (NOTHING, NOTHING)
                assert web.dialled == [(PUBLIC, 80)] * 5 + [(PUBLIC, 443)]
                assert [request.split()[1] for request in web.requests] == [
                    *(b"/one", b"/moved/allowed.test", b"/", b"/moved/other.test", b"/moved/private.test"),
                    b"/secret",
                ]
                open_a_way(network, web)
                job.open("way")
                await job.reaches("end")
                control, control6 = packets(network), packets(network, "ip6tables")
                job.open("end")
        finally:
            await executor.aclose()
    assert outputs[0].stdout.decode().splitlines() == [
        *("this is /one", "no http://other.test/", f"no http://{PUBLIC}/", "no http://private.test/"),
        *("no http://metadata.test/", "this is /", "no http://allowed.test/moved/other.test"),
        *("no http://allowed.test/moved/private.test", "no http://allowed.test:8080/"),
        *("this is /secret", "no TLS other.test", f"no TLS {PUBLIC}", "no TLS private.test"),
        "around",  # and nothing was reached
        "control",
        *(f"reached {host} {port}" for host in (PUBLIC, METADATA) for port in (80, 443)),
        *(f"reached {PUBLIC6} {port}" for port in (80, 443)),
        f"fetched {PUBLIC}",
    ]
    # The same program is seen as soon as there is a way. It may make no raw sockets, which pings need.
    assert {"tcp", "udp"} <= {kind for kind, count in control.items() if count}
    assert {"tcp", "udp"} <= {kind for kind, count in control6.items() if count}
    assert control["icmp"] == 0
    assert request.meter.network_bytes_sent
    assert request.meter.network_bytes_received
    assert "other.test" in outputs[0].stderr.decode()
