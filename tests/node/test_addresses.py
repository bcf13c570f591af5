from __future__ import annotations

import pytest

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.node.addresses import NodeAddresses, listen_addresses
from bacalhau_p2p.settings import Settings


class Transport:
    addresses = ("/ip6/2001:db8::1/tcp/1/p2p/Q", "/ip4/192.0.2.7/tcp/1/p2p/Q")


def gateway_url(**options: object) -> str:
    addresses = NodeAddresses(Settings(**options), Transport())
    addresses.api_url = f"http://{options.get('api_host', '127.0.0.1')}:1234"
    return addresses.gateway_url


def test_a_gateway_is_announced_only_where_others_can_reach_it():
    assert gateway_url() == ""
    assert gateway_url(gateway=True) == ""
    assert gateway_url(gateway=True, gateway_url="https://gate.example") == "https://gate.example"
    assert gateway_url(gateway=False, gateway_url="https://gate.example") == ""
    assert gateway_url(gateway=True, api_host="192.0.2.9") == "http://192.0.2.9:1234"
    assert gateway_url(gateway=True, api_host="0.0.0.0") == "http://192.0.2.7:1234"


def test_without_an_api_there_is_no_gateway():
    addresses = NodeAddresses(Settings(gateway=True, api_host="192.0.2.9"), Transport())
    assert addresses.gateway_url == ""


def test_multiaddrs_are_those_of_the_transport():
    assert NodeAddresses(Settings(), Transport()).multiaddrs == Transport.addresses


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "/ip4/0.0.0.0/tcp/1"),
        ("127.0.0.1", "/ip4/127.0.0.1/tcp/1"),
        ("localhost", "/ip4/127.0.0.1/tcp/1"),
        ("::1", "/ip6/::1/tcp/1"),
        ("::", "/ip6/::/tcp/1"),
    ],
)
def test_a_node_listens_at_addresses_of_both_families_and_at_names(host, address):
    assert listen_addresses(host, 1) == (address,)


def test_a_name_that_nobody_knows_is_an_error():
    with pytest.raises(SettingsError, match=r"swarm_host: 'nosuch\.invalid' is neither"):
        listen_addresses("nosuch.invalid", 1)
