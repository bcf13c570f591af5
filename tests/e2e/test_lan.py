"""Nodes on one local network find each other with mDNS, and kubo too: processes in network namespaces."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.networks.forked_commands import COMMAND
from tests.support.networks.local_network import Machine, local_network
from tests.support.networks.networks import Node
from tests.support.servers.real_kubo import running_kubo
from tests.support.waiting import eventually

pytestmark = pytest.mark.network

LISTENER = Path(__file__).parents[1] / "support" / "peers" / "mdns_listener.py"
NEVER_DIALS = ("env", "BACALHAU_P2P_NEIGHBOURS=0")
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


@contextmanager
def node_on(machine: Machine, folder: Path, *flags: str, prefix: tuple[str, ...] = ()) -> Iterator[Node]:
    program = (*machine.prefix, *prefix, COMMAND, "serve")
    node = Node(folder, "--swarm-host", machine.ip, "--engine", "noop", *flags, program=program)
    try:
        yield node
    finally:
        node.stop()


def peers(node: Node, machine: Machine) -> list[str]:
    """The peers that a node is connected to."""
    url = f"http://127.0.0.1:{node.network.port}/api/v1/agent/node"
    command = [*machine.prefix, sys.executable, "-c", GET, url]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["ConnectedPeers"]


@contextmanager
def listener_on(machine: Machine, *addresses: str) -> Iterator[Iterator[str]]:
    """The addresses that somebody on this machine hears of, as they come."""
    with subprocess.Popen(
        [*machine.prefix, "timeout", "120", sys.executable, LISTENER, *addresses],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield iter(process.stdout)
        finally:
            process.terminate()  # `timeout` passes this on, but could not pass on a kill


def test_nodes_without_any_address_find_each_other_and_one_without_mdns_stays_alone(tmp_path: Path):
    with ExitStack() as stack:
        machines = stack.enter_context(local_network(3))
        first, second, alone = (
            stack.enter_context(node_on(machine, tmp_path / machine.ip, *flags))
            for machine, flags in zip(machines, ((), (), ("--no-mdns",)), strict=True)
        )
        eventually(lambda: peers(first, machines[0]) == [second.peer_id])
        assert peers(second, machines[1]) == [first.peer_id]
        assert peers(alone, machines[2]) == []


def test_nodes_on_one_machine_find_each_other_too(tmp_path: Path):
    with ExitStack() as stack:
        (machine,) = stack.enter_context(local_network(1))
        nodes = [stack.enter_context(node_on(machine, tmp_path / f"{number}")) for number in range(2)]
        eventually(lambda: peers(nodes[0], machine) == [nodes[1].peer_id])


def test_addresses_of_ipv6_are_found_over_ipv6():
    peer = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
    with ExitStack() as stack:
        machines = stack.enter_context(local_network(2))
        own = [f"/ip6/{machine.ip6}/tcp/1/p2p/{peer}" for machine in machines]
        stack.enter_context(listener_on(machines[0], own[0]))
        heard = stack.enter_context(listener_on(machines[1], own[1]))
        assert {next(heard).strip() for _ in range(4)} >= {own[0]}


def test_kubo_finds_a_node(tmp_path: Path):
    with ExitStack() as stack:
        machines = stack.enter_context(local_network(2))
        node = stack.enter_context(node_on(machines[0], tmp_path / "node", prefix=NEVER_DIALS))
        kubo = stack.enter_context(running_kubo(tmp_path, address=machines[1].ip, prefix=machines[1].prefix))
        eventually(lambda: peers(node, machines[0]) == [kubo.peer])


def test_a_node_finds_kubo(tmp_path: Path):
    with ExitStack() as stack:
        machines = stack.enter_context(local_network(2))
        heard = stack.enter_context(listener_on(machines[0], f"/ip4/{machines[0].ip}/tcp/1"))
        kubo = stack.enter_context(running_kubo(tmp_path, address=machines[1].ip, prefix=machines[1].prefix))
        assert next(heard).strip() in kubo.addresses
