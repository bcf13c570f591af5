"""Nodes on one network find each other, and strangers there cannot make them do much."""

from __future__ import annotations

import math
import random
from collections import Counter
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network

import pytest
import trio

from bacalhau_p2p.discovery import mdns, packets
from bacalhau_p2p.discovery.mdns import CHECK_INTERVAL, LONGEST_QUERY_INTERVAL, Mdns
from bacalhau_p2p.discovery.networks import LocalNetwork
from bacalhau_p2p.identity.identity import Identity

STRANGER = "10.0.0.250"


class Switch:
    """A network in memory: what one sends, all receive. Counts what was sent."""

    def __init__(self) -> None:
        self._ports: list[trio.MemorySendChannel] = []
        self.sent: Counter[str] = Counter()
        self.fails = False

    def join(self, network: LocalNetwork) -> Port:
        if self.fails:
            raise OSError(19, "No such device")
        send, receive = trio.open_memory_channel[tuple[bytes, str]](math.inf)
        self._ports.append(send)
        return Port(self, str(network.ip), send, receive)

    def deliver(self, packet: bytes, sender: str) -> None:
        self.sent["questions" if packets.read(packet).asks else "answers"] += 1
        for port in self._ports:
            port.send_nowait((packet, sender))

    def leave(self, port: trio.MemorySendChannel) -> None:
        self._ports.remove(port)

    @property
    def joined(self) -> int:
        return len(self._ports)


class Port:
    """One node's end of a switch."""

    def __init__(self, switch: Switch, ip: str, send, receive) -> None:
        self._switch = switch
        self._ip = ip
        self._send = send
        self._receive = receive

    async def send(self, packet: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._switch.fails:
            raise OSError(100, "Network is down")
        self._switch.deliver(packet, self._ip)

    async def receive(self) -> tuple[bytes, str]:
        return await self._receive.receive()

    def close(self) -> None:
        self._switch.leave(self._send)


class NodeOnSwitch:
    """A node's mDNS, and what it found: times and addresses by peer."""

    def __init__(self, switch: Switch, number: int) -> None:
        ip = f"10.0.0.{number}"
        self.peer = Identity.generate().peer_id
        self.address = f"/ip4/{ip}/tcp/{1000 + number}/p2p/{self.peer}"
        self.found: dict[str, tuple[str, ...]] = {}
        self.times: list[float] = []
        self.networks = [LocalNetwork(ip_address(ip), ip_network("10.0.0.0/24"), 2)]
        self.mdns = Mdns(
            lambda: [self.address, f"/ip4/127.0.0.1/tcp/1/p2p/{self.peer}"],
            self._add,
            random.Random(number),
            networks=lambda: self.networks,
            join=switch.join,
        )

    def _add(self, peer, addresses) -> None:
        self.times.append(trio.current_time())
        self.found[peer] = tuple(addresses)


@asynccontextmanager
async def nodes_on(switch: Switch, count: int):
    nodes = [NodeOnSwitch(switch, number) for number in range(1, count + 1)]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.mdns.run)
        yield nodes
        nursery.cancel_scope.cancel()


async def test_all_nodes_find_each_other_within_seconds(autojump_clock):
    async with nodes_on(Switch(), 20) as nodes:
        await trio.sleep(4)
        assert all(node.found == {other.peer: (other.address,) for other in nodes} for node in nodes)


async def test_a_newcomer_is_found_and_finds_all_at_once(autojump_clock):
    switch = Switch()
    async with nodes_on(switch, 3) as nodes, trio.open_nursery() as nursery:
        await trio.sleep(3600)
        newcomer = NodeOnSwitch(switch, 99)
        nursery.start_soon(newcomer.mdns.run)
        await trio.sleep(0.5)
        assert set(newcomer.found) == {newcomer.peer, *(node.peer for node in nodes)}
        assert all(newcomer.peer in node.found for node in nodes)
        nursery.cancel_scope.cancel()


async def test_many_idle_nodes_ask_as_often_as_one(autojump_clock):
    switch = Switch()
    async with nodes_on(switch, 20):
        await trio.sleep(4 * LONGEST_QUERY_INTERVAL)
        switch.sent.clear()
        await trio.sleep(5 * LONGEST_QUERY_INTERVAL)
        assert 3 <= switch.sent["questions"] <= 10
        assert switch.sent["answers"] <= 20 * switch.sent["questions"]


async def test_a_flood_of_questions_is_answered_once_a_second(autojump_clock):
    switch = Switch()
    async with nodes_on(switch, 1):
        await trio.sleep(60)
        switch.sent.clear()
        for _ in range(1000):
            switch.deliver(packets.query(), STRANGER)
            await trio.sleep(0.01)
        assert 5 <= switch.sent["answers"] <= 11


async def test_what_is_read_of_one_address_and_of_all_is_limited(autojump_clock, monkeypatch):
    monkeypatch.setattr(mdns, "PACKET_BURST_OF_ONE", 20.0)
    monkeypatch.setattr(mdns, "PACKET_BURST", 50.0)
    switch = Switch()
    async with nodes_on(switch, 1) as (node,):
        await trio.sleep(60)
        node.times.clear()
        answer = packets.answer(
            "x", ip_address(STRANGER), 1, [f"/ip4/{STRANGER}/tcp/1/p2p/{Identity.generate().peer_id}"]
        )
        for _ in range(1000):
            switch.deliver(answer, STRANGER)
        await trio.testing.wait_all_tasks_blocked()
        assert len(node.times) == 20
        for number in range(100):
            switch.deliver(answer, f"10.0.0.{100 + number}")
        await trio.testing.wait_all_tasks_blocked()
        assert len(node.times) == 50


async def test_strangers_from_elsewhere_and_addresses_elsewhere_are_ignored(autojump_clock):
    switch = Switch()
    async with nodes_on(switch, 1) as (node,):
        await trio.sleep(60)
        peer, far = Identity.generate().peer_id, Identity.generate().peer_id
        near = f"/ip4/{STRANGER}/tcp/1/p2p/{peer}"
        switch.deliver(packets.answer("x", ip_address(STRANGER), 1, [near]), "192.0.2.1")
        elsewhere = [f"/ip4/{ip}/tcp/22/p2p/{far}" for ip in ("10.0.1.1", "127.0.0.1", "169.254.169.254")]
        switch.deliver(packets.answer("x", ip_address(STRANGER), 1, elsewhere), STRANGER)
        switch.deliver(b"\xff" * 9000, STRANGER)
        switch.deliver(packets.answer("x", ip_address(STRANGER), 1, [near, *elsewhere]), STRANGER)
        await trio.sleep(1)
        assert node.found == {node.peer: (node.address,), peer: (near,)}


@pytest.mark.parametrize("failure", ["the network is down", "the network is gone"])
async def test_a_network_that_is_lost_is_joined_again_when_it_is_back(autojump_clock, failure):
    switch = Switch()
    async with nodes_on(switch, 2) as (node, other):
        await trio.sleep(60)
        if failure == "the network is down":
            switch.fails = True
            await trio.sleep(2 * LONGEST_QUERY_INTERVAL)
        else:
            node.networks, kept = [], node.networks
            await trio.sleep(2 * CHECK_INTERVAL)
            node.networks = kept
        node.found.clear()
        switch.fails = False
        await trio.sleep(2 * CHECK_INTERVAL)
        assert set(node.found) == {node.peer, other.peer}
        assert switch.joined == 2


async def test_a_node_that_ends_leaves_the_network(autojump_clock):
    switch = Switch()
    async with nodes_on(switch, 2):
        await trio.sleep(1)
        assert switch.joined == 2
    assert switch.joined == 0
