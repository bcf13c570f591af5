"""Addresses that users give and that nodes announce."""

from __future__ import annotations

import pytest
from multiaddr import Multiaddr

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.transports.libp2p.addresses import (
    expand_wildcard,
    parse_announced_address,
    parse_bootstrap_address,
    parse_listen_address,
    parse_peer_address,
)

PEER = Identity.generate(bytes(32)).peer_id


@pytest.mark.parametrize(
    ("check", "address"),
    [
        (parse_listen_address, "nonsense"),
        (parse_listen_address, "/ip4/127.0.0.1/udp/4001/quic-v1"),
        (parse_listen_address, "/ip4/127.0.0.1/tcp/4001/ws"),
        (parse_listen_address, "/dns4/example.org/tcp/4001"),
        (parse_listen_address, "/ip4/203.0.113.1/tcp/4001"),
        (parse_announced_address, "127.0.0.1:4001"),
        (parse_bootstrap_address, "/ip4/127.0.0.1/tcp/4001"),
        (parse_bootstrap_address, "/ip4/127.0.0.1/tcp/4001/p2p/nobody"),
        (parse_bootstrap_address, f"/ip4/127.0.0.1/udp/4001/p2p/{PEER}"),
        (parse_bootstrap_address, f"/ip4/127.0.0.1/tcp/4001/ws/p2p/{PEER}"),
        (parse_bootstrap_address, f"/ip4/127.0.0.1/tcp/99999/p2p/{PEER}"),
        (parse_bootstrap_address, f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER[:-1]}"),
    ],
)
def test_invalid_addresses_are_settings_errors(check, address):
    with pytest.raises(SettingsError):
        check(address)


@pytest.mark.parametrize("host", ["ip4/192.0.2.7", "dns4/example.org", "dns/example.org"])
def test_the_peer_of_a_peer_address_is_found(host):
    assert parse_peer_address(f"/{host}/tcp/4001/p2p/{PEER}") == PEER


def test_a_wildcard_address_becomes_addresses_that_can_be_dialled():
    expanded = expand_wildcard(Multiaddr("/ip4/0.0.0.0/tcp/4001"))
    assert expanded
    assert all(address.value_for_protocol("ip4") != "0.0.0.0" for address in expanded)
    assert all(address.value_for_protocol("tcp") == "4001" for address in expanded)


def test_other_addresses_are_not_expanded():
    address = Multiaddr("/ip4/192.0.2.7/tcp/4001")
    assert expand_wildcard(address) == [address]
