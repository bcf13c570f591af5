"""Which networks and addresses are private and this machine's own."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from types import SimpleNamespace

import ifaddr
import pytest

from bacalhau_p2p.discovery.networks import (
    LocalNetwork,
    addresses_within,
    has_private_address,
    ip_of_address,
    networks_of,
    own_networks,
)

LAN = LocalNetwork(ip_address("192.168.1.5"), ip_network("192.168.1.0/24"), 2)
LAN_6 = LocalNetwork(ip_address("fd00::5"), ip_network("fd00::/64"), 2)
PEER = "/tcp/1/p2p/x"


def test_only_private_networks_of_interfaces_count(monkeypatch):
    def ip(address: object, prefix: int) -> SimpleNamespace:
        return SimpleNamespace(ip=address, network_prefix=prefix)

    adapters = [
        SimpleNamespace(index=1, ips=[ip("127.0.0.1", 8), ip(("::1", 0, 0), 128)]),
        SimpleNamespace(index=2, ips=[ip("192.168.1.5", 24), ip(("fd00::5", 0, 0), 64)]),
        SimpleNamespace(
            index=3, ips=[ip("203.0.113.9", 24), ip("169.254.1.1", 16), ip(("fe80::1", 0, 3), 64)]
        ),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
    assert own_networks() == [LAN, LAN_6]


def test_only_addresses_in_own_networks_are_taken():
    near = ["/ip4/192.168.1.9" + PEER, "/ip6/fd00::9" + PEER]
    far = [
        "/ip4/192.168.2.9" + PEER,
        "/ip4/8.8.8.8" + PEER,
        "/ip4/127.0.0.1" + PEER,
        "/ip4/169.254.169.254" + PEER,
        "/ip6/fd01::9" + PEER,
        "/dns4/router.lan" + PEER,
    ]
    assert addresses_within([*far, *near], [LAN, LAN_6]) == near
    assert addresses_within([*far, *near], []) == []


def test_the_networks_of_a_node_are_those_in_which_it_has_an_address():
    assert networks_of(["/ip4/127.0.0.1" + PEER, "/ip6/fd00::5" + PEER], [LAN, LAN_6]) == [LAN_6]
    assert networks_of(["/memory/1/p2p/x"], [LAN, LAN_6]) == []


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("/ip4/10.9.9.9/tcp/1", True),
        ("/ip4/172.31.0.1/tcp/1", True),
        ("/ip6/fdab::1/tcp/1", True),
        ("/ip4/172.32.0.1/tcp/1", False),
        ("/ip4/127.0.0.1/tcp/1", False),
        ("/ip4/203.0.113.1/tcp/1", False),
        ("/ip6/fe80::1/tcp/1", False),
        ("/dns4/host.lan/tcp/1", False),
    ],
)
def test_private_addresses_are_those_of_local_networks(address, private):
    assert has_private_address([address]) is private


@pytest.mark.parametrize("address", ["", "/", "/ip4", "/ip4/x/tcp/1", "/ip4/::1/tcp/1", "/ip6/1.2.3.4/tcp/1"])
def test_what_is_no_ip_address_has_none(address):
    assert ip_of_address(address) is None
